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
from tools.commands import call

ROOT = Path(__file__).resolve().parent.parent


def shared_overrides(bundle: Path) -> list[str]:
    """What fit_demo.json changes of the images themselves has to be said to inference.json as well."""
    demo, inference = (json.loads((bundle / f"configs/{name}.json").read_text()) for name in ("fit_demo", "inference"))
    return [text for key in demo if key[0] != "_" and key in inference for text in (f"--{key}", str(demo[key]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.name for path in (ROOT / "bundles").iterdir() if (path / "configs").is_dir())
    parser.add_argument("bundle", choices=known)
    parser.add_argument("--output", type=Path, default=ROOT / "runs/demo")
    args = parser.parse_args()
    bundle, runs = ROOT / "bundles" / args.bundle, args.output.resolve() / args.bundle
    shutil.rmtree(runs, ignore_errors=True)
    began = time.monotonic()

    relative = Path(os.path.relpath(runs, bundle))
    places = ["--dataset_dir", str(relative / "data"), "--ckpt_path", str(relative / "model.pt")]
    run = ["-m", "monai.bundle", "run"]
    call(ROOT, "-m", "bundlekit.phantoms", args.bundle, os.path.relpath(runs / "data", ROOT))
    steps = [("train fit_demo", "."), ("train evaluate fit_demo", "."), ("inference", "predictions")]
    pretrained = []
    if (bundle / "configs/pretrain.json").exists():
        pretrained = ["--pretrained_path", str(relative / "pretrained.pt")]
        first = ["--dataset_dir", str(relative / "data"), "--ckpt_path", pretrained[1]]
        files = ["configs/pretrain.json", "configs/fit_demo.json"]
        call(bundle, *run, "--config_file", str(files), *first, "--output_dir", str(relative / "pretraining"))
    for configs, output in steps:
        files = [f"configs/{name}.json" for name in configs.split()]
        config_file = str(files) if len(files) > 1 else files[0]
        options = {"inference": shared_overrides(bundle), "train fit_demo": pretrained}.get(configs, [])
        call(bundle, *run, "--config_file", config_file, *places, "--output_dir", str(relative / output), *options)

    pictures = drawing.draw_section(runs / "data", "test", runs / "predictions", runs / "overlays")
    scores.plot_history(runs / "history.json", runs / "history.png")
    print()
    scores.print_table(runs / "metrics.json")
    print(f"\n{time.monotonic() - began:.0f} s. Pictures (image | truth | prediction):")
    for picture in [*pictures, runs / "history.png"]:
        print(f"  {os.path.relpath(picture, ROOT)}")


if __name__ == "__main__":
    main()
