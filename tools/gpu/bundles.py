"""Step: a bundle segments phantoms, trains and resumes on the device as on the CPU."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.gpu.comparison import LIMITS, compare_masks
from tools.gpu.results import Report
from tools.gpu.timing import Settings, exact_float32
from tools.gpu.workflows import Sizes, is_of_objects, one_epoch, parse_training, phantoms, segment

__all__ = ["run"]

NUM_STEPS = 3


def check_masks(report: Report, bundle: str, precision: str, wanted: dict[str, np.ndarray], found: Any) -> None:
    """Compare the masks of a precision with those of float32 on the CPU, image by image."""
    objects, limit = is_of_objects(bundle), LIMITS[precision]
    name = f"masks in {precision}"
    if found.keys() != wanted.keys() or not wanted:
        report.check(name, False, f"{len(found)} masks; expected {len(wanted)}")
        return
    differences = [compare_masks(wanted[file], found[file], objects) for file in wanted]
    within = all(difference.is_within(limit) for difference in differences)
    worst = max(differences, key=lambda difference: (difference.at_border, difference.away))
    foreground = sum(int(np.count_nonzero(mask)) for mask in wanted.values())
    shares = f"at most {limit.at_border:.1%} of border pixels and {limit.away:.3%} of the others may differ"
    report.check(name, within and foreground > 0, f"{worst}; {shares}; {foreground} pixels are foreground")


def check_inference(report: Report, bundle: str, settings: Settings) -> None:
    """float32 without TF32, with it, and bfloat16 on the device, against float32 on the CPU."""
    sizes, folder = Sizes(bundle, settings.small), Path(settings.folder)
    data = phantoms(bundle, folder / "images", sizes.to_segment, test=1 if settings.small else 2) / "images"
    wanted = segment(bundle, data, folder / "cpu", device="cpu", amp=False, **sizes.inference)
    device = str(settings.device)
    with exact_float32():
        found = segment(bundle, data, folder / "float32", device=device, amp=False, **sizes.inference)
    check_masks(report, bundle, "float32", wanted, found)
    if settings.on_gpu:
        found = segment(bundle, data, folder / "tf32", device=device, amp=False, **sizes.inference)
        check_masks(report, bundle, "TF32", wanted, found)
    else:
        report.needs_gpu("masks in TF32")
    found = segment(bundle, data, folder / "bfloat16", device=device, amp=True, **sizes.inference)
    check_masks(report, bundle, "bfloat16", wanted, found)


def losses_of_steps(bundle: str, data: Path, settings: Settings, amp: bool, changes: dict[str, Any]) -> list[float]:
    """Losses of one batch before the first step and after each."""
    device = settings.device
    parser = parse_training(bundle, data, data.parent, device=str(device), amp=amp, **changes)
    network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss", "optimizer"))
    batch = next(iter(parser.get_parsed_content("train::dataloader")))
    image, label = batch["image"].to(device), batch["label"].to(device)
    network.train()
    on_gpu = torch.autocast("cuda", torch.bfloat16) if amp and settings.on_gpu else contextlib.nullcontext()
    losses = []
    for number in range(NUM_STEPS + 1):
        with on_gpu:
            value = loss(network(image), label)
        losses.append(float(value.detach()))
        if number < NUM_STEPS:
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return losses


def check_steps(report: Report, bundle: str, data: Path, settings: Settings) -> None:
    """A few steps on one batch lower its loss, in float32 and bfloat16."""
    for amp in (False, True):
        name = f"{NUM_STEPS} training steps in {'bfloat16' if amp else 'float32'}"
        losses = losses_of_steps(bundle, data, settings, amp, Sizes(bundle, settings.small).train)
        falls = all(map(math.isfinite, losses)) and losses[-1] < losses[0]
        report.check(name, falls, f"losses {', '.join(f'{value:.4f}' for value in losses)}")


def check_resuming(report: Report, bundle: str, data: Path, settings: Settings) -> None:
    """An epoch on the CPU, the next one on the device, the last one on the CPU again; all in bfloat16."""
    output = data.parent / "training"
    output.mkdir()
    changes = Sizes(bundle, settings.small).train
    other = str(settings.device) if settings.on_gpu else "cpu:0"  # another name of it
    for number, device in enumerate(("cpu", other, "cpu")):
        history = one_epoch(bundle, data, output, resume=number > 0, device=device, amp=True, **changes)
    epochs = [int(epoch) for epoch, _ in history["loss"]]
    losses = [float(loss) for _, loss in history["loss"]]
    weights = torch.load(output / "model.pt", weights_only=True)
    on_cpu = all(value.device.type == "cpu" and bool(value.isfinite().all()) for value in weights.values())
    passed = epochs == [1, 2, 3] and all(map(math.isfinite, losses)) and on_cpu
    name = "a training is resumed from the CPU on the device and back"
    report.check(name, passed, f"epochs {epochs}, losses {', '.join(f'{value:.4f}' for value in losses)}")


def run(report: Report, settings: Settings, bundle: str) -> None:
    """Check one bundle.

    Args:
        report: takes the checks.
        settings: device and sizes.
        bundle: its name.
    """
    problems = []
    sizes, folder = Sizes(bundle, settings.small), Path(settings.folder)
    data = phantoms(bundle, folder / "data", sizes.to_train_on, training=4)
    for what, check in (
        ("inference", lambda: check_inference(report, bundle, settings)),
        ("training steps", lambda: check_steps(report, bundle, data, settings)),
        ("resuming", lambda: check_resuming(report, bundle, data, settings)),
    ):
        try:
            check()
        except (Exception, SystemExit) as error:
            problems.append(f"{what} ended with {type(error).__name__}: {str(error).strip()[:200]}")
    if problems:
        raise SystemExit("; ".join(problems))
