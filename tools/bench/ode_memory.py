"""Measure the peak memory of a training step of U-Node by tolerance, with stored states and with plain autograd.

    OMP_NUM_THREADS=1 python -m tools.bench.ode_memory

On a CPU each number is the largest resident set of a new process after its first training step, less the resident set
before it; freed tensors are returned to the system at once (glibc's MALLOC_MMAP_THRESHOLD_). On a GPU it is
torch.cuda.max_memory_allocated less the memory allocated before.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys

import psutil
import torch
from torch.nn import functional

from studies.markdown import markdown_table
from tools.bench.unode_reference import REFERENCE, WEIGHTS, num_evaluations, reference_network, sample
from unet_ode.nets import UNode

SOLVERS = {
    "checkpoint, 1e-1": {"rtol": 1e-1},
    "checkpoint, 1e-2": {"rtol": 1e-2},
    "checkpoint, 1e-3": {"rtol": 1e-3},
    "checkpoint, 1e-4": {"rtol": 1e-4},
    "backprop, 1e-1": {"rtol": 1e-1, "gradient": "backprop"},
    "backprop, 1e-2": {"rtol": 1e-2, "gradient": "backprop"},
    "backprop, 1e-3": {"rtol": 1e-3, "gradient": "backprop"},
}
# of the subprocesses: without it the resident set holds freed tensors, some tenths more in one run than in the next
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}


def measure(name: str, weights_path: str, device: torch.device, size: list[int]) -> tuple[int, float]:
    """(evaluations of the forward pass, MiB that one training step adds at its peak)."""
    weights = torch.load(weights_path, weights_only=True, map_location=device)
    if name == REFERENCE:
        network = reference_network(weights)
    else:
        network = UNode(2, 3, 2, **SOLVERS[name])
        network.load_state_dict(weights)
    network.to(device)
    image, target = sample(*size, device)
    on_gpu = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_gpu else psutil.Process().memory_info().rss
    output = network(image)
    nfe = num_evaluations(network)
    functional.binary_cross_entropy_with_logits(output, target).backward()
    peak = (
        torch.cuda.max_memory_allocated(device) if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return nfe, (peak - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=str(WEIGHTS), help="state_dict of U-Node")
    parser.add_argument("--size", type=int, nargs=2, default=[352, 512], help="rows and columns of the image")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--solver", help="measure only this solver, in this process")
    args = parser.parse_args()
    if args.solver:
        nfe, mib = measure(args.solver, args.weights, torch.device(args.device), args.size)
        print(f"{nfe} | {mib:.0f}")
        return
    print(f"{args.size[0]} x {args.size[1]} px, batch of 1, fp32, {args.device}, torch {torch.__version__}\n")
    print(markdown_table(["gradient, tolerance", "evaluations", "peak memory, MiB"], []))
    for name in [REFERENCE, *SOLVERS]:
        command = [
            sys.executable,
            "-m",
            "tools.bench.ode_memory",
            "--solver",
            name,
            "--weights",
            args.weights,
            "--device",
            args.device,
        ]
        command += ["--size", *map(str, args.size)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
        print(f"| {name} | {result.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    main()
