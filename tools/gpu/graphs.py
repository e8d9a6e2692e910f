"""Step: CUDA graphs for U-Node's equal steps: are they the same function, and how much time do launches take?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from tools.bench.unode_reference import WEIGHTS
from tools.gpu.results import Report
from tools.gpu.solvers import SIZE, batch_of
from tools.gpu.timing import Settings, seconds_of
from unet_ode.nets import UNode
from unet_ode.ode import ODEBlock

__all__ = ["run"]

NUM_STEPS = 2
COLUMNS = ["", "ms without", "ms of launching", "ms with a graph", "times faster", "largest difference"]


class EqualSteps(nn.Module):
    """The end of a block's equal steps without its checks, which wait for the GPU and cannot be captured.

    Args:
        block: with ``num_steps``.
    """

    def __init__(self, block: ODEBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.block._equal_steps(y, 0)[0]


def network_of(device: torch.device) -> UNode:
    network = UNode(2, 3, 2, method="midpoint", num_steps=NUM_STEPS)
    network.load_state_dict(torch.load(WEIGHTS, weights_only=True, map_location=device))
    return network.to(device).eval()


def launch_ms(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds until a call returns, the GPU still being at work."""
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


@torch.no_grad()
def whole_forward(batch_size: int, device: torch.device) -> Sequence[str]:
    """Inference of the network, traced, with and without a graph."""
    network = network_of(device)
    image = batch_of(SIZE, batch_size, device)[0]
    traced = torch.jit.trace(network, image, check_trace=False)
    wanted = network(image)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # the tracer's own optimisation, and the choice of kernels
            traced(image)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = traced(image)
    graph.replay()
    difference = float((output - wanted).abs().max())
    plain, with_graph = seconds_of(lambda: network(image), device), seconds_of(graph.replay, device)
    launching = launch_ms(lambda: traced(image), device)
    return cells(plain, launching, with_graph, difference)


def block_with_gradients(name: str, shape: tuple[int, ...], device: torch.device) -> Sequence[str]:
    """Forward and backward of one block's equal steps, with and without graphs."""
    network = network_of(device)
    block = network.embedding if name == "embedding" else network.down[0]
    steps = EqualSteps(block).train()
    state = torch.randn(shape, device=device, requires_grad=True)

    def gradients(module: nn.Module) -> list[torch.Tensor]:
        steps.zero_grad(set_to_none=True)
        output = module(state)
        return [output, *torch.autograd.grad(output.square().sum(), [state, *steps.parameters()])]

    wanted = [each.detach().clone() for each in gradients(steps)]
    plain, launching = seconds_of(lambda: gradients(steps), device), launch_ms(lambda: gradients(steps), device)
    graphed = torch.cuda.make_graphed_callables(
        EqualSteps(block).train(), (torch.randn_like(state, requires_grad=True),)
    )
    found = gradients(graphed)
    difference = max(float((a.detach() - b).abs().max()) for a, b in zip(found, wanted, strict=True))
    return cells(plain, launching, seconds_of(lambda: gradients(graphed), device), difference)


def cells(plain: float, launching: float, with_graph: float, difference: float) -> list[str]:
    times = [f"{1000 * plain:.2f}", f"{launching:.2f}", f"{1000 * with_graph:.2f}", f"{plain / with_graph:.2f}"]
    return [*times, f"{difference:.1e}{' (bit-equal)' if difference == 0 else ''}"]


def run(report: Report, settings: Settings) -> None:
    """Measure the network and two of its blocks.

    Args:
        report: takes a row for each.
        settings: device and sizes.
    """
    if not settings.on_gpu:
        report.needs_gpu("CUDA graphs")
        return
    title = f"midpoint, {NUM_STEPS} equal steps, float32"
    for count in (1, 8):
        name = f"inference, {SIZE[0]} x {SIZE[1]} px, batch of {count}"
        report.measure(title, COLUMNS, name, lambda n=count: whole_forward(n, settings.device), required=False)
    for block, channels, side in (("embedding", 256, 16), ("down1", 16, 1)):
        shape = (1, channels, SIZE[0] // side, SIZE[1] // side)
        name = f"{block}, forward and backward, state {tuple(shape)}"
        report.measure(
            title, COLUMNS, name, lambda b=block, s=shape: block_with_gradients(b, s, settings.device), required=False
        )
