"""Predicts the memory of one training step by running it on tensors without data."""

from __future__ import annotations

import contextlib
import gc
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..losses import RegularizedLoss
from ..nets import FullyInvertibleUNet, PartiallyInvertibleUNet, UNet3D
from .live_memory import LiveMemory
from .remembered import KnownRanges, RememberedShapes

__all__ = ["NETWORKS", "OPTIMIZERS", "Prediction", "Training", "predict"]

NETWORKS: dict[str, tuple[str, ...]] = {
    "UNet3D": ("none", "checkpoint"),
    "PartiallyInvertibleUNet": ("none", "checkpoint", "memcnn", "native"),
    "FullyInvertibleUNet": ("none", "checkpoint", "memcnn", "native"),
}
"""The networks, each with its engines."""

# foreach is what PyTorch takes on a GPU; it works on all parameters at once
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, foreach=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, foreach=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, foreach=True),
}
"""Optimisers: Adam and AdamW hold two moments of each parameter, SGD (momentum 0.9) one."""


_MOST_NUMBERS = 2**50  # some petabytes; PyTorch counts the bytes of a tensor in 64 bits


@dataclass(frozen=True)
class Training:
    """A training step to plan for: cross entropy + Dice of logits over ``out_channels`` classes, and the VAE's losses.

    Attributes:
        network: a key of :data:`NETWORKS`.
        engine: one of the network's.
        depth: per level and side; couplings of the invertible networks, double convolutions of UNet3D.
        amp: whether the forward pass runs under autocast to bfloat16.
        patch: voxels along each axis.
        batch_size: patches in a step.
        in_channels: channels of the image.
        out_channels: channels of the logits, one of them the background.
        channels: channels of each level of the network.
        vae: whether the network has its VAE branch.
        optimizer: a key of :data:`OPTIMIZERS`.

    Raises:
        ValueError: when a value is not one of those, or not positive.

    Example:
        >>> Training("UNet3D", "memcnn")
        Traceback (most recent call last):
        ValueError: engine is 'memcnn'; expected one of none, checkpoint for UNet3D
    """

    network: str
    engine: str
    depth: int = 1
    amp: bool = False
    patch: tuple[int, int, int] = (128, 128, 128)
    batch_size: int = 1
    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (32, 64, 128, 256)
    vae: bool = False
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        for name, table in (("network", NETWORKS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(table)}")
        if self.engine not in NETWORKS[self.network]:
            expected = ", ".join(NETWORKS[self.network])
            raise ValueError(f"engine is {self.engine!r}; expected one of {expected} for {self.network}")
        if len(self.patch) != 3:
            raise ValueError(f"patch is {self.patch}; expected three numbers of voxels")
        for name in ("depth", "batch_size", "in_channels", "out_channels"):
            least = 2 if name == "out_channels" else 1
            if getattr(self, name) < least:
                classes = ": background and one class" if least == 2 else ""
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}{classes}")
        for name in ("patch", "channels"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected positive numbers")
        numel = self.batch_size * math.prod(self.patch) * max(*self.channels, self.in_channels, self.out_channels)
        if numel > _MOST_NUMBERS:
            raise ValueError(
                f"patch is {self.patch} in batches of {self.batch_size}; expected fewer voxels: one level would "
                f"hold {numel:.1e} numbers"
            )

    def make_network(self) -> nn.Module:
        """The network, in training mode, on the default device."""
        arguments: dict[str, Any] = {"channels": self.channels, "engine": self.engine, "vae": self.vae}
        if self.network == "UNet3D":
            return UNet3D(self.in_channels, self.out_channels, num_blocks=self.depth, **arguments)
        make = PartiallyInvertibleUNet if self.network == "PartiallyInvertibleUNet" else FullyInvertibleUNet
        return make(self.in_channels, self.out_channels, num_couplings=self.depth, **arguments)


@dataclass(frozen=True)
class Prediction:
    """Memory of a training step, in bytes.

    Attributes:
        training: what was predicted.
        live_bytes: peak of the tensors that a step allocates: activations, gradients of activations and of parameters.
        parameter_bytes: parameters.
        optimizer_bytes: what the optimiser keeps between steps.
        update_bytes: peak of further bytes in the update: the gradients and temporary tensors.
        batch_bytes: image and label, both float32.
    """

    training: Training
    live_bytes: int
    parameter_bytes: int
    optimizer_bytes: int
    update_bytes: int
    batch_bytes: int

    @property
    def total_bytes(self) -> int:
        """What a device must hold: all of the above; of the step and the update, which take turns, the larger."""
        held = self.parameter_bytes + self.optimizer_bytes + self.batch_bytes
        return held + max(self.live_bytes, self.update_bytes)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@contextlib.contextmanager
def _without_content(amp: bool) -> Iterator[None]:
    """New tensors are on the device "meta", or fake where autocast needs a device: that takes several times longer."""
    if not amp:
        with torch.device("meta"):
            yield
        return
    with FakeTensorMode(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        yield


def _measure_update(network: nn.Module, optimizer: str) -> tuple[int, int]:
    """(bytes that the optimiser keeps, peak of further bytes)."""
    with LiveMemory() as memory:
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)
        # kept beyond the block, or its state would be gone
        optimizer_ = OPTIMIZERS[optimizer](network.parameters())
        optimizer_.step()
        network.zero_grad(set_to_none=True)
        kept = memory.current_bytes
    return kept, memory.peak_bytes - kept


def _measure_step(network: nn.Module, image: torch.Tensor, label: torch.Tensor, amp: bool) -> int:
    loss = RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    with LiveMemory() as memory:
        with torch.autocast(image.device.type, torch.bfloat16) if amp else contextlib.nullcontext():
            output = network(image)
            with KnownRanges():
                total = loss(output, label)
        del output
        total.backward()
    return memory.peak_bytes


def predict(training: Training) -> Prediction:
    """Memory of a training step: the step is run, forward, loss, backward and update, on tensors without content.

    The live bytes equal :class:`invres3d.plan.live_memory.LiveMemory` around the same step on real tensors. Not
    counted, and to be left free on a GPU: CUDA's context, workspaces of convolutions, fragments between allocations.
    With CUDA it is the step on the GPU. Without, it is that on the CPU, where autocast keeps other operations in full
    precision: a norm is in bfloat16 there and in float32 on a GPU, which then needs more.

    Raises:
        ValueError: when the patch does not fit the network; the message names the size to pad to.

    Source:
        Not in the paper, whose tables 2 and 3 have a figure for each network.

    Example:
        >>> small = Training("UNet3D", "none", patch=(16, 16, 16), in_channels=1, out_channels=2, channels=(8, 16))
        >>> found = predict(small)
        >>> found.batch_bytes, found.optimizer_bytes // found.parameter_bytes
        (32768, 2)
    """
    shape = training.batch_size, training.in_channels, *training.patch
    gc.collect()  # what is freed inside of a step must be the step's
    with warnings.catch_warnings(), _without_content(training.amp), RememberedShapes():
        warnings.filterwarnings("ignore", message="The .grad attribute")
        network = training.make_network().train()
        image, label = torch.empty(shape), torch.empty(shape[0], 1, *shape[2:])
        live = _measure_step(network, image, label, training.amp)
        network.zero_grad(set_to_none=True)
        kept, update = _measure_update(network, training.optimizer)
        parameters, batch = _bytes(network.parameters()), _bytes([image, label])
    return Prediction(training, live, parameters, kept, update, batch)
