"""Step: one process in a process group: nccl, batch norm over all processes, and the scaling of float16 gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from bundlekit.processes import disconnect, gather, join_training
from bundlekit.training.precision import Precision
from tools.gpu.results import Report
from tools.gpu.timing import Settings
from unet_ode.nets import UNet

__all__ = ["run"]

CHANNELS, SIZE, BATCH_SIZE = (16, 32, 64), 64, 4
NUM_STEPS, TOLERANCE = 3, 1e-4
NUM_STEPS_MIXED = 40  # of which the first ones are left out until the scale has become small enough
TOO_LARGE_SCALE = 2.0**40


@contextmanager
def one_process_group(device: torch.device) -> Iterator[str]:
    """This process as the only one of a training; gives the name of the way in which processes would talk."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with mock.patch.dict(os.environ, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", **address):
        join_training(device)
        try:
            yield str(dist.get_backend())
        finally:
            disconnect()


def network_of(device: torch.device, sync: bool) -> nn.Module:
    torch.manual_seed(0)
    network = UNet(2, 1, 1, channels=CHANNELS, padding="same", norm="batch")
    return Precision(device, amp=False, sync_batch_norm=sync).prepare(network).train()


def train(network: nn.Module, device: torch.device, dtype: torch.dtype | None, scale: float = 0) -> tuple:
    """Losses before each step, and the gradient scaler after the last one.

    Args:
        network: with one channel in and out.
        device: its device.
        dtype: of autocast; None for float32.
        scale: by which gradients are multiplied at first; 0 for none.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(BATCH_SIZE, 1, SIZE, SIZE, generator=generator).to(device)
    label = (image > 0.5).float()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale or 1.0, enabled=scale > 0)
    losses = []
    for _ in range(NUM_STEPS if dtype is None else NUM_STEPS_MIXED):
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = functional.binary_cross_entropy_with_logits(network(image), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
    return losses, scaler


def check_group(report: Report, device: torch.device) -> None:
    """A training in a process group of one equals the training without."""
    wanted, _ = train(network_of(device, sync=False), device, None)
    with one_process_group(device) as backend:
        network = network_of(device, sync=True)
        synchronous = sum(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
        wrapped = DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
        losses, _ = train(wrapped, device, None)
        gathered = gather({"rank": dist.get_rank()})
    error = max(abs(a - b) / abs(b) for a, b in zip(losses, wanted, strict=True))
    found = f"losses differ by at most {error:.1e}"
    report.check(f"a training in a process group of one, {backend}", error <= TOLERANCE, found)
    report.check("objects are gathered while a training runs", gathered == [{"rank": 0}], str(gathered))
    if device.type == "cuda":
        report.check("nccl is chosen", backend == "nccl", backend)
        report.check("batch norm over all processes", synchronous > 0, f"{synchronous} layers")
    else:
        report.needs_gpu("nccl is chosen")
        report.needs_gpu("batch norm over all processes")


def check_scaling(report: Report, device: torch.device) -> None:
    """float16 begins at too large a scale, and bfloat16 needs none."""
    network = network_of(device, sync=False)
    losses, _ = train(network, device, torch.bfloat16)
    report.check("a training in bfloat16", losses[-1] < losses[0], f"loss {losses[0]:.4f} to {losses[-1]:.4f}")
    name = "a training in float16 with GradScaler"
    if device.type != "cuda":
        report.needs_gpu(name)
        return
    network = network_of(device, sync=False)
    losses, scaler = train(network, device, torch.float16, TOO_LARGE_SCALE)
    finite = all(bool(parameter.isfinite().all()) for parameter in network.parameters())
    passed = finite and 0 < scaler.get_scale() < TOO_LARGE_SCALE and losses[-1] < losses[0]
    found = (
        f"loss {losses[0]:.4f} to {losses[-1]:.4f}, scale 2^40 to {scaler.get_scale():.0f}, weights finite: {finite}"
    )
    report.check(name, passed, found)


def run(report: Report, settings: Settings) -> None:
    """Check the process group and the scaling.

    Args:
        report: takes the checks.
        settings: the device.
    """
    check_group(report, settings.device)
    check_scaling(report, settings.device)
