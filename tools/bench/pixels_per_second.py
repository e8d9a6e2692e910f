"""Measure pixels classified per second: window by window, densely by the same classifier, and by U-Net.

    OMP_NUM_THREADS=2 python -m tools.bench.pixels_per_second

The methods take turns within one run; each number is the ratio to classifying windows one batch after another in the
same turn: median, smallest and largest over the turns. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from bundlekit.inference.tiles import OverlapTileInferer
from studies.markdown import markdown_table
from unet_ode.nets import PixelClassifier, UNet

CONFIG = Path(__file__).resolve().parents[2] / "bundles/membrane_em_segmentation/configs/inference.json"


def millions(network: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.1f} M"


def contenders(size: int, num_windows: int, device: torch.device) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (pixels that one call classifies, the call)."""
    image = torch.rand(1, 1, size, size, device=device)
    classifier = PixelClassifier(2, 1, 2).eval().to(device)
    side = classifier.window
    windows = image.unfold(2, side, 1).unfold(3, side, 1).reshape(-1, 1, side, side)[:num_windows]
    paper = UNet(2, 1, 2).eval().to(device)
    small = ConfigParser(ConfigParser.load_config_file(CONFIG)).get_parsed_content("network_def").eval().to(device)
    paper_tiles, small_tiles = OverlapTileInferer(388, paper.margin), OverlapTileInferer(512, margin=32)
    return {
        "pixel classifier, window by window": (
            num_windows,
            lambda: [classifier.classify_windows(w) for w in windows.split(64)],
        ),
        "pixel classifier, every pixel in one pass": (size * size, lambda: classifier(image)),
        f"U-Net of the paper ({millions(paper)}), overlap tiles": (size * size, lambda: paper_tiles(image, paper)),
        f"U-Net of the bundle ({millions(small)}), overlap tiles": (size * size, lambda: small_tiles(image, small)),
    }


@torch.no_grad()
def seconds(call: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="side of the square image in pixels")
    parser.add_argument("--num_windows", type=int, default=256, help="windows in a turn of the first method")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    calls = contenders(args.size, args.num_windows, device)
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(args.repeats + 1):
        for name, (pixels, call) in calls.items():
            rate = pixels / seconds(call, device)
            if turn > 0:  # the first turn warms up
                rates[name].append(rate)
        print(f"turn {turn} of {args.repeats}", end="\r", flush=True)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.size} x {args.size} px, fp32, {where}, torch {torch.__version__}, {args.repeats} turns\n")
    print(markdown_table(["", "pixels per second, as a multiple of window by window: median (min to max)"], []))
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratios = [value / base for value, base in zip(values, first, strict=True)]
        print(f"| {name} | {statistics.median(ratios):,.0f} ({min(ratios):,.0f} to {max(ratios):,.0f}) |")


if __name__ == "__main__":
    main()
