"""Step: sliding windows over volumes: more than a GPU holds, and voxels per second by the number of windows at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from bundlekit.errors import describe
from tools.arguments import BUNDLES
from tools.bundle_folder import load_network
from tools.gpu.results import Report
from tools.gpu.timing import Settings, exact_float32, measure_cost, wait

__all__ = ["run"]

LIMITED = "hippocampus_mri_segmentation"
LIMIT_MIB, SIDE_OF_LIMITED, PATCH_OF_LIMITED = 512, 384, (64, 96, 64)
RATED = {"hippocampus_mri_segmentation": 128, "brain_tumor_mri_segmentation": 192, "lung_ct_segmentation": 192}
"""Bundle -> side of the volume in voxels."""
TOLERANCE = 1e-4
"""Other kernels are chosen where less memory is left for them."""
SMALL_SIDE, SMALL_PATCH = 32, 16
WINDOWS = (1, 2, 4, 8, 16)
COLUMNS = ["sw_batch_size", "voxels per second", "ms", "MiB"]


def inferer_of(bundle: str, **overrides: Any) -> Any:
    """The inferer of a bundle's inference.json."""
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLES / bundle / "configs/inference.json"))
    parser.update(overrides)
    return parser.get_parsed_content("inferer")


def volume_of(bundle: str, side: int) -> torch.Tensor:
    """A batch of one cube of random values, as many channels as the bundle's images have, on the CPU."""
    return torch.randn(1, len(read_config(bundle).get("modalities", ["one"])), side, side, side)


def read_config(bundle: str) -> dict[str, Any]:
    return ConfigParser.load_config_file(BUNDLES / bundle / "configs/inference.json")


@torch.no_grad()
def check_limit(report: Report, settings: Settings) -> None:
    """A volume that the GPU could not hold is segmented with ``volume_device`` cpu, with the same output."""
    name = f"volume_device cpu: {SIDE_OF_LIMITED}^3 voxels in {LIMIT_MIB} MiB of the GPU"
    if not settings.on_gpu:
        report.needs_gpu(name)
        return
    device, network = settings.device, load_network(BUNDLES / LIMITED).to(settings.device)
    image = volume_of(LIMITED, SIDE_OF_LIMITED)
    changes = {"device": str(device), "patch_size": list(PATCH_OF_LIMITED), "inferer#overlap": 0.25}
    on_cpu = inferer_of(LIMITED, volume_device="cpu", **changes)
    wanted = on_cpu(image, network)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(LIMIT_MIB * 2**20 / total, device)
    try:
        torch.cuda.reset_peak_memory_stats(device)
        found = on_cpu(image, network)
        peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
        sizes = (
            f"image and logits take {(image.nbytes + found.nbytes) / 2**20:.0f} MiB, the peak was {peak_mib:.0f} MiB"
        )
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        report.check(name, difference <= TOLERANCE, f"outputs differ by {difference:.1e} of the largest; {sizes}")
        report.check("the same volume does not fit with volume_device cuda", *fits_not(image, network, changes, device))
    except torch.OutOfMemoryError as error:
        report.check(name, False, describe(error))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def fits_not(image: torch.Tensor, network: nn.Module, changes: dict, device: torch.device) -> tuple[bool, str]:
    """Whether assembling the volume on the GPU ends for lack of memory."""
    try:
        inferer_of(LIMITED, volume_device=str(device), **changes)(image.to(device), network)
    except torch.OutOfMemoryError:
        return True, "out of memory, as expected"
    return False, "it fits: the limit has no effect"


@torch.no_grad()
def rate(bundle: str, count: int, image: torch.Tensor, network: nn.Module, settings: Settings) -> Sequence[str]:
    """Voxels per second with so many windows at once, in bfloat16 on a GPU as by default."""
    changes: dict[str, Any] = {"device": str(settings.device), "volume_device": "cpu", "inferer#sw_batch_size": count}
    if settings.small:
        changes["patch_size"] = [SMALL_PATCH] * len(read_config(bundle)["patch_size"])
    inferer = inferer_of(bundle, **changes)

    def segment() -> None:
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.on_gpu):
            inferer(image, network)
        wait(settings.device)

    cost = measure_cost(segment, settings.device, 1)
    return [f"{image[0, 0].numel() / cost.seconds:,.0f}", *cost.cells]


def run(report: Report, settings: Settings) -> None:
    """Check the limit; measure the rates.

    Args:
        report: takes checks and rows.
        settings: device and sizes.
    """
    with exact_float32():
        check_limit(report, settings)
    for bundle, full in RATED.items():
        side = SMALL_SIDE if settings.small else full
        network = load_network(BUNDLES / bundle).to(settings.device)
        image = volume_of(bundle, side)
        title = f"{bundle}, {side}^3 voxels, {'bfloat16' if settings.on_gpu else 'float32'}, volume_device cpu"
        for count in WINDOWS[:2] if settings.small else WINDOWS:
            report.measure(
                title, COLUMNS, str(count), lambda n=count: rate(bundle, n, image, network, settings)  # noqa: B023
            )  # fmt: skip
