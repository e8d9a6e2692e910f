"""Compare U-Node's solvers with the paper's configuration: time, error and gradient of one training step.

    OMP_NUM_THREADS=2 python -m tools.bench.ode_solvers

The reference is the same network with the same weights on torchdiffeq as the paper uses it: odeint_adjoint, dopri5,
tolerances 1e-3, the time concatenated to the state. The solvers take turns within one run; a speed is the ratio to the
reference in the same turn: median, smallest and largest over the turns. Errors and gradients are compared with a
solution in 64 bits at tolerance 1e-5, on the smaller image. One image at a time; both channels have the whole mask as
target. Run nothing else at the same time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torchdiffeq
from torch import nn
from torch.nn import functional

from studies.markdown import markdown_table
from tools.bench.unode_reference import (
    REFERENCE,
    WEIGHTS,
    num_evaluations,
    reference_network,
    reset_evaluations,
    sample,
)
from unet_ode.nets import UNode

SIZES = ((128, 192), (352, 512))
SOLVERS = {
    "bosh3, 1e-3": {"rtol": 1e-3},
    "bosh3, 2.8e-3, first step 0.2": {"rtol": 2.8e-3, "first_step": 0.2},
    "bosh3, 2e-3, first step 0.2, bfloat16 field": {"rtol": 2e-3, "first_step": 0.2},
    "bosh3, 1e-2, first step 0.2 (the bundle's)": {"rtol": 1e-2, "first_step": 0.2},
    "bosh3, 1e-2, first step 0.2, bfloat16 field": {"rtol": 1e-2, "first_step": 0.2},
    "midpoint, 2 steps": {"method": "midpoint", "num_steps": 2},
}


class Contender(NamedTuple):
    network: nn.Module
    amp: bool = False


class Bench:
    """The calls that are timed, on one image."""

    def __init__(self, image: torch.Tensor, target: torch.Tensor) -> None:
        self.image, self.target, self.device = image, target, image.device

    def infer(self, contender: Contender) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=contender.amp):
            return contender.network(self.image)

    def train(self, contender: Contender) -> None:
        contender.network.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=contender.amp):
            output = contender.network(self.image)
        functional.binary_cross_entropy_with_logits(output.to(self.target.dtype), self.target).backward()

    def seconds(self, call: Callable[[Contender], object], contender: Contender) -> float:
        began = time.perf_counter()
        call(contender)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began


def contenders(weights: dict[str, torch.Tensor], device: torch.device) -> dict[str, Contender]:
    found = {REFERENCE: Contender(reference_network(weights).to(device))}
    for name, arguments in SOLVERS.items():
        network = UNode(2, 3, 2, **arguments)
        network.load_state_dict(weights)
        found[name] = Contender(network.to(device), amp="bfloat16" in name)
    return found


def gradient(network: nn.Module) -> torch.Tensor:
    """All gradients in one vector; the reference's joined weights are taken apart."""
    parts = {}
    for name, parameter in network.named_parameters():
        value = parameter.grad.double()
        if ".func." in name and name.endswith("weight") and not isinstance(network, UNode):
            parts[f"{name}_time"], value = value[:, :1], value[:, 1:]
        parts[name] = value
    return torch.cat([parts[name].flatten() for name in sorted(parts)])


class Accuracy(NamedTuple):
    """Error of the probability, root mean square and largest, and cosine between the gradient and the exact one."""

    rms: float
    largest: float
    cosine: float


def measure_accuracy(
    bench: Bench, entries: dict[str, Contender], weights: dict[str, torch.Tensor]
) -> dict[str, Accuracy]:
    """How far each solver is from a solution in 64 bits at tolerance 1e-5."""
    tight = UNode(2, 3, 2, rtol=1e-5, max_nfe=100_000).double().to(bench.device)
    tight.load_state_dict(weights)
    exact = Bench(bench.image.double(), bench.target.double())
    exact.train(Contender(tight))
    wanted, truth = gradient(tight), torch.sigmoid(exact.infer(Contender(tight)))
    accuracies = {}
    for name, contender in entries.items():
        bench.train(contender)
        found = gradient(contender.network)
        error = torch.sigmoid(bench.infer(contender).double()) - truth
        cosine = float(found @ wanted / (found.norm() * wanted.norm()))
        accuracies[name] = Accuracy(float(error.square().mean().sqrt()), float(error.abs().max()), cosine)
    return accuracies


def report_accuracy(bench: Bench, entries: dict[str, Contender], weights: dict[str, torch.Tensor]) -> None:
    print()
    print(markdown_table(["solver", "error of the probability, rms", "largest", "cosine of the gradient"], []))
    for name, (rms, largest, cosine) in measure_accuracy(bench, entries, weights).items():
        print(f"| {name} | {rms:.2e} | {largest:.1e} | {cosine:.3f} |")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report_speed(bench: Bench, entries: dict[str, Contender], repeats: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
    nfe = {}
    for turn in range(repeats + 1):
        for name, contender in entries.items():
            reset_evaluations(contender.network)
            inference = bench.seconds(bench.infer, contender)
            nfe[name] = num_evaluations(contender.network)
            training = bench.seconds(bench.train, contender)
            if turn > 0:  # the first turn warms up
                times[name].append((training, inference))
        print(f"turn {turn} of {repeats}", end="\r", file=sys.stderr, flush=True)
    size = " x ".join(map(str, bench.image.shape[2:]))
    print(f"\n{size} px, batch of 1, {repeats} turns; a training step of the reference took", end=" ")
    print(f"{statistics.median(value[0] for value in times[REFERENCE]):.2f} s\n")
    print(markdown_table(["solver", "evaluations", "training step, times faster", "inference, times faster"], []))
    for name, values in times.items():
        ratios = [[b[i] / v[i] for v, b in zip(values, times[REFERENCE], strict=True)] for i in range(2)]
        print(f"| {name} | {nfe[name]} | {spread(ratios[0])} | {spread(ratios[1])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=WEIGHTS, help="state_dict of U-Node")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    weights = torch.load(args.weights, weights_only=True, map_location=device)
    entries = contenders(weights, device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, torchdiffeq {torchdiffeq.__version__}")
    for i, (height, width) in enumerate(SIZES):
        bench = Bench(*sample(height, width, device))
        report_speed(bench, entries, args.repeats)
        if i == 0:
            report_accuracy(bench, entries, weights)


if __name__ == "__main__":
    main()
