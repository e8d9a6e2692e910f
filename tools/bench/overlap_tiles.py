"""Compare overlap tiles with MONAI's sliding window (speed, memory, seams), or measure a whole slide in the bundle.

    OMP_NUM_THREADS=2 python -m tools.bench.overlap_tiles [--weights MODEL_PT] [--image FILE]
    python -m tools.bench.overlap_tiles --slide 4704 6240     # peak memory of inference.json on an image of that size

The methods take turns on one image with the same network; speed is the ratio of pixels per second to the sliding window
with overlap 0.5 in the same turn: median, smallest and largest. Quality is the share of pixels, away from the borders,
whose mask equals the mask of the whole image in one pass, which takes some GiB. Memory is the largest resident set of a
new process, on a larger image, less the resident set after the network has run on one tile. Run nothing else at the
same time. It takes a quarter of an hour on two cores, --slide a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from monai.bundle import ConfigParser
from monai.inferers import Inferer, SlidingWindowInferer
from PIL import Image

from bundlekit.inference.tiles import OverlapTileInferer
from bundlekit.phantoms.nuclei import nuclei_microscopy
from studies.markdown import markdown_table
from tools.bundle_folder import load_network

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/nuclei_microscopy_segmentation"
BASE = "sliding window of 1024 px, overlap 0.5"
OURS = "overlap tiles of 512 px in 1024 (the bundle's)"
BORDER_PX = 256
PHANTOM_PX = 280
# of the comparison: without it the resident set holds freed tensors, some tenths more in one run than in the next
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}


def contenders() -> dict[str, Callable[[], Inferer]]:
    def window(size: int, overlap: float) -> Callable[[], Inferer]:
        return lambda: SlidingWindowInferer((size, size), 1, overlap, mode="gaussian")

    def tiles(size: int, margin: int) -> Callable[[], Inferer]:
        return lambda: OverlapTileInferer(size, margin, divisor=32, network_crops=True)

    return {
        BASE: window(1024, 0.5),
        "sliding window of 1024 px, overlap 0.25": window(1024, 0.25),
        OURS: tiles(512, 256),
        "sliding window of 256 px, overlap 0.5": window(256, 0.5),
        "sliding window of 256 px, overlap 0.25": window(256, 0.25),
        "overlap tiles of 256 px in 384": tiles(256, 64),
        "overlap tiles of 128 px in 256 (the report's)": tiles(128, 64),
    }


def load_image(path: str | None, size: int) -> torch.Tensor:
    """As the bundle prepares it; by default a phantom of ``size`` px, made of smaller ones side by side."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = f"{folder}/phantom.png"
            Image.fromarray(slide(size, size, colour=False)).save(path)
        parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/inference.json"))
        return parser.get_parsed_content("preprocessing")({"image": path})["image"].as_tensor()[None]


def slide(rows: int, columns: int, colour: bool) -> np.ndarray:
    """Nine light phantoms side by side, over and over, every 840 px, which is the step of no contender; grey or RGB."""
    tiles: list[np.ndarray] = []
    seed = 0
    while len(tiles) < 9:
        phantom = nuclei_microscopy(np.random.default_rng(seed), PHANTOM_PX)
        seed += 1
        if phantom.truth["appearance"] == "fluorescence":
            tiles.append(phantom.image)
    block = np.block([tiles[:3], tiles[3:6], tiles[6:]])
    whole = np.tile(block, [-(-side // len(block)) for side in (rows, columns)])[:rows, :columns]
    return np.repeat(whole[..., None], 3, axis=2) if colour else whole


def resident_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


def peak_mib() -> float:
    """The peak of this process only; getrusage's peak begins with the memory of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@torch.no_grad()
def peak_above_network(name: str, args: argparse.Namespace) -> float:
    """MiB that one contender adds to image and network, in this process."""
    network = load_network(BUNDLE, ckpt_path=args.weights).to(memory_format=torch.channels_last)
    image = load_image(args.image, args.size)
    network(torch.zeros(1, 3, 64, 64))
    before = resident_mib()
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak, without the peak of reading the image
    contenders()[name]()(image, network)
    return peak_mib() - before


@torch.no_grad()
def compare(args: argparse.Namespace) -> None:
    network = load_network(BUNDLE, ckpt_path=args.weights).to(memory_format=torch.channels_last)
    image = load_image(args.image, args.size)
    calls = {name: make() for name, make in contenders().items()}
    inner = (..., *(slice(BORDER_PX, side - BORDER_PX) for side in image.shape[2:]))
    side = -(-max(image.shape[2:]) // 32) * 32
    wanted = OverlapTileInferer(side, 0, divisor=32)(image, network)[inner] > 0  # one tile
    rates: dict[str, list[float]] = {name: [] for name in calls}
    equal = {}
    for turn in range(args.repeats + 1):
        for name, inferer in calls.items():
            began = time.perf_counter()
            output = inferer(image, network)
            if turn > 0:  # the first turn warms up
                rates[name].append(image[0, 0].numel() / (time.perf_counter() - began))
            equal[name] = float(((output[inner] > 0) == wanted).float().mean())
        print(f"turn {turn} of {args.repeats}", end="\r", flush=True)
    size = " x ".join(map(str, image.shape[2:]))
    print(f"{size} px, fp32, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, {args.repeats} turns\n")
    large = "" if args.image else f" of {args.memory_size} x {args.memory_size} px"
    memory_title = f"MiB above network and image{large}"
    print(markdown_table(["", "times faster", "pixels as in one pass", memory_title], []))
    for name, values in rates.items():
        ratios = [value / base for value, base in zip(values, rates[BASE], strict=True)]
        command = [sys.executable, "-m", "tools.bench.overlap_tiles", "--memory_of", name, "--weights", args.weights]
        command += ["--size", str(args.memory_size)]
        command += ["--image", args.image] if args.image else []
        memory = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT).stdout
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {spread} | {100 * equal[name]:.3f} % | {float(memory):.0f} |", flush=True)
    print_seams(calls[OURS], image, network)


def print_seams(inferer: Inferer, image: torch.Tensor, network: torch.nn.Module) -> None:
    """How many pixels of a mask stay the same when all tiles are shifted by half a tile."""
    middle = (..., *(slice(256, 256 + 512 * ((side - 256) // 512)) for side in image.shape[2:]))
    if min(image[middle].shape[2:]) <= 2 * BORDER_PX:
        print("\nthe image is too small for a shift by half a tile: seams are not compared")
        return
    shifted, whole = inferer(image[middle], network), inferer(image, network)[middle]
    inner = (..., *(slice(BORDER_PX, side - BORDER_PX) for side in shifted.shape[2:]))
    same = float(((shifted[inner] > 0) == (whole[inner] > 0)).float().mean())
    print(f"\ntiles shifted by half a tile: {100 * same:.3f} % of the pixels are the same")


def run_slide(args: argparse.Namespace) -> None:
    """Run inference.json as a user does on one RGB image, and print its peak and a small image's."""
    peaks, seconds = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, (rows, columns) in (("small", (64, 64)), ("slide", tuple(args.slide))):
            path = f"{folder}/{name}.png"
            Image.fromarray(slide(rows, columns, colour=True)).save(path, compress_level=1)
            options = {"dataset_dir": path, "output_dir": f"{folder}/out", "ckpt_path": args.weights, "device": "cpu"}
            options |= {"instances": str(args.instances).lower()}
            began = time.perf_counter()
            command = [sys.executable, "-m", "tools.bench.overlap_tiles", "--run_with", json.dumps(options)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds = time.perf_counter() - began
            peaks.append(float(done.stdout.splitlines()[-1]))
    (small, large), (rows, columns) = peaks, args.slide
    kind = "mask and instances" if args.instances else "mask"
    print(f"{rows} x {columns} px, RGB, {kind}: {large - small:.0f} MiB above the {small:.0f} of a 64 x 64 image")
    print(f"(network, libraries), {seconds:.0f} s, {rows * columns / seconds:,.0f} px/s")
    print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")


def run_bundle(options: dict[str, str]) -> None:
    from monai.bundle import run

    os.chdir(BUNDLE)
    run(config_file="configs/inference.json", **options)
    print(f"\n{peak_mib()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=str(BUNDLE / "models/model.pt"), help="state_dict of the bundle's network")
    parser.add_argument("--image", help="micrograph; a phantom by default")
    parser.add_argument("--size", type=int, default=3072, help="side of the phantom in pixels")
    parser.add_argument("--memory_size", type=int, default=4096, help="the same, for measuring memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slide", type=int, nargs=2, metavar=("ROWS", "COLUMNS"), help="run inference.json instead")
    parser.add_argument("--instances", action="store_true", help="with --slide: also label each nucleus")
    parser.add_argument("--memory_of", help="measure only this method, in this process")
    parser.add_argument("--run_with", type=json.loads, help="run inference.json in this process, print its peak in MiB")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.run_with:
        run_bundle(args.run_with)
    elif args.memory_of:
        print(peak_above_network(args.memory_of, args))
    elif args.slide:
        run_slide(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
