"""Measure the time of a training step by engine, as a multiple of the same network that stores everything.

    OMP_NUM_THREADS=2 python -m tools.bench.invertible_steps

One step is forward pass, cross entropy + Dice and backward pass, on one patch in fp32. The engines take turns within
one run, with the same weights; a ratio is to engine "none" in the same turn: median, smallest and largest over the
turns. The first turn is a warm-up. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import torch
from monai.losses import DiceCELoss
from torch import nn

from invres3d.losses import RegularizedLoss
from invres3d.plan import NETWORKS, Training
from studies.markdown import markdown_table

BASE = "none"


def contenders(network: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    """The network with each of its engines, all with the same weights."""
    found: dict[str, nn.Module] = {}
    for engine in NETWORKS[network]:
        depth = 1 if network == "UNet3D" else args.num_couplings
        training = Training(
            network, engine, depth, channels=tuple(args.channels), vae=network != "UNet3D", patch=(args.patch,) * 3
        )
        found[engine] = training.make_network().to(args.device).train()
        found[engine].load_state_dict(found[BASE].state_dict())
    return found


def seconds(network: nn.Module, loss: nn.Module, image: torch.Tensor, label: torch.Tensor) -> float:
    network.zero_grad(set_to_none=True)
    began = time.perf_counter()
    loss(network(image), label).backward()
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - began


def take_turns(networks: dict[str, nn.Module], args: argparse.Namespace) -> dict[str, list[float]]:
    loss = RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    image = torch.randn(1, 4, *(args.patch,) * 3, device=args.device)
    label = torch.randint(0, 4, (1, 1, *(args.patch,) * 3), device=args.device).float()
    times: dict[str, list[float]] = {engine: [] for engine in networks}
    for turn in range(args.repeats + 1):
        for engine, network in networks.items():
            took = seconds(network, loss, image, label)
            if turn > 0:
                times[engine].append(took)
        print(f"turn {turn} of {args.repeats}", end="\r", file=sys.stderr, flush=True)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--patch", type=int, default=64, help="side of the cube in voxels")
    parser.add_argument("--num_couplings", type=int, default=4, help="per level and side")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128, 256], help="of each level")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    on_gpu = torch.device(args.device).type == "cuda"
    threads = f"CPU, {torch.get_num_threads()} threads, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    where = torch.cuda.get_device_name(args.device) if on_gpu else threads
    print(
        f"{args.patch} x {args.patch} x {args.patch} voxels, {args.num_couplings} couplings, batch of 1, fp32, {where},"
    )
    print(f"torch {torch.__version__}, {args.repeats} turns\n")
    print(markdown_table(["network", "engine", "seconds, median", 'as a multiple of "none": median (min to max)'], []))
    for network in args.networks:
        times = take_turns(contenders(network, args), args)
        for engine, values in times.items():
            ratios = [value / base for value, base in zip(values, times[BASE], strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {network} | {engine} | {statistics.median(values):.2f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
