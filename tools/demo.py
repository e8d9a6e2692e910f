"""Train, evaluate and infer with one bundle on phantoms, with the commands that a user would type.

    python -m tools.demo membrane_em_segmentation

Writes runs/demo/<bundle>/: data/ (phantoms), model.pt, metrics.json, history.png and overlays/*.png. If the bundle has
a pretrain.json, it is pre-trained first, and the training starts from the pre-trained weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

from bundlekit.reports import drawing, scores
from tools.arguments import BUNDLES, known_bundles
from tools.commands import call

ROOT = Path(__file__).resolve().parent.parent


def shared_overrides(bundle: Path) -> list[str]:
    """What fit_demo.json changes of the images themselves has to be said to inference.json as well."""
    demo, inference = (json.loads((bundle / f"configs/{name}.json").read_text()) for name in ("fit_demo", "inference"))
    return [text for key in demo if key[0] != "_" and key in inference for text in (f"--{key}", str(demo[key]))]


def run_steps(bundle: Path, runs: Path) -> None:
    """Make phantoms, train on them, evaluate and segment; pre-train first where the bundle does so."""
    relative = Path(os.path.relpath(runs, bundle))
    data = ("--dataset_dir", str(relative / "data"))

    def step(names: str, output: str, ckpt: str, *more: str) -> None:
        files = [f"configs/{name}.json" for name in names.split()]
        config_file = str(files) if len(files) > 1 else files[0]
        places = (*data, "--ckpt_path", str(relative / ckpt), "--output_dir", str(relative / output))
        call(bundle, "-m", "monai.bundle", "run", "--config_file", config_file, *places, *more)

    call(ROOT, "-m", "bundlekit.phantoms", bundle.name, os.path.relpath(runs / "data", ROOT))
    pretrained: tuple[str, ...] = ()
    if (bundle / "configs/pretrain.json").exists():
        step("pretrain fit_demo", "pretraining", "pretrained.pt")
        pretrained = ("--pretrained_path", str(relative / "pretrained.pt"))
    step("train fit_demo", ".", "model.pt", *pretrained)
    step("train evaluate fit_demo", ".", "model.pt")
    step("inference", "predictions", "model.pt", *shared_overrides(bundle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", choices=known_bundles())
    parser.add_argument("--output", type=Path, default=ROOT / "runs/demo")
    args = parser.parse_args()
    bundle, runs = BUNDLES / args.bundle, args.output.resolve() / args.bundle
    shutil.rmtree(runs, ignore_errors=True)
    began = time.monotonic()
    run_steps(bundle, runs)
    pictures = drawing.draw_section(runs / "data", "test", runs / "predictions", runs / "overlays")
    scores.plot_history(runs / "history.json", runs / "history.png")
    print()
    scores.print_table(runs / "metrics.json")
    print(f"\n{time.monotonic() - began:.0f} s. Pictures (image | truth | prediction):")
    for picture in [*pictures, runs / "history.png"]:
        print(f"  {os.path.relpath(picture, ROOT)}")


if __name__ == "__main__":
    main()
