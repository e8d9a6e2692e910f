"""Chains of invertible steps, and the selection of the engine that trains them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .grid import round_to_grid
from .guards import is_same_size_conv, require_no_tensor_hooks, require_repeatable
from .memcnn_engine import run_with_memcnn
from .native_engine import run_native
from .steps import Residual, Step

__all__ = ["ENGINES", "Chain", "check_engine", "is_installed"]

ENGINES = ("native", "memcnn", "checkpoint", "none")


def is_installed(engine: str) -> bool:
    """Whether the packages that the engine needs are there; only "memcnn" needs one."""
    return engine != "memcnn" or importlib.util.find_spec("memcnn") is not None


def check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if not is_installed(engine):
        remedy = "run pip install memcnn, or use engine 'native', which trains the same network"
        raise ModuleNotFoundError(f"engine is 'memcnn', but memcnn is not installed; {remedy}", name="memcnn")


class Chain(nn.Module):
    """Steps from the stem's output to the logits, trained with one of four engines.

    - "native": stores only the final state and recomputes every earlier one in place in the backward pass;
    - "memcnn": does the same with the package that the paper used, one coupling at a time;
    - "checkpoint": stores the input of every coupling and repeats the coupling in the backward pass;
    - "none": stores everything.

    In evaluation and without gradients all of them are the plain forward pass.

    Args:
        steps: what the chain does; they bring the list of levels back to one level.
        head: 1x1x1 convolution of the final state.
        bottleneck: number of the step before which the state of the deepest level is given out.
        engine: "native", "memcnn", "checkpoint" or "none".

    Shape:
        - x1, x2: (N, C / 2, D, H, W), the halves of the state. The engine may use them up.
        - output: logits (N, out, D, H, W) and the state of the deepest level.

    Raises:
        ValueError: when the engine is another.
        ModuleNotFoundError: when the engine is "memcnn" and that package is not installed.
        RuntimeError: in a forward pass in training, when a branch of a coupling changes its input or gives another
            shape. In a forward pass of "native", when a module of the chain has hooks, a parametrization or a class
            that is not known, or a parameter has a hook for its gradient; of every engine but "none", when a module
            that it runs twice draws random numbers ("checkpoint" repeats them) or has running statistics; of
            "memcnn", when a state left the range, a parameter has such a hook, or a part is in evaluation mode. In a
            backward pass, when a state left the range of exactness, when parameters have changed since the forward
            pass, when the recomputed states differ from the forward pass for another reason, or on a second one.

    Source:
        Gomez et al. 2017, "The Reversible Residual Network: Backpropagation Without Storing Activations"; Yamazaki,
        Rathour, Le 2021 (arXiv:2103.09042), section 2.
        Not stated there: states on a grid for an exact way back, the check of it, slabs, one pass for the whole chain.
    """

    def __init__(self, steps: Sequence[Step], head: nn.Conv3d, bottleneck: int, engine: str) -> None:
        super().__init__()
        check_engine(engine)
        self.steps = nn.ModuleList(steps)
        self.head = head
        self.bottleneck = bottleneck
        self.engine = engine
        self.head_in_halves = True

    def apply_head(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """Logits of the state's halves, which are joined only where the head has to be called as a module."""
        in_halves = self.head_in_halves if torch.jit.is_scripting() else is_same_size_conv(self.head, 1)
        if hasattr(self.head, "weight") and in_halves:  # TorchScript looks for the weight of any head otherwise
            width = x1.shape[1]
            logits = F.conv3d(x1, self.head.weight[:, :width], self.head.bias)
            return logits.add_(F.conv3d(x2, self.head.weight[:, width:]))
        return self.head(torch.cat([x1, x2], 1))

    def __prepare_scriptable__(self) -> Chain:
        self.head_in_halves = is_same_size_conv(self.head, 1)  # for TorchScript, which cannot tell
        return self

    def _run_plain(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        levels = [x1, x2]
        deepest = x1
        for i, step in enumerate(self.steps):
            if i == self.bottleneck:
                deepest = torch.cat([levels[-2], levels[-1]], 1)
            levels = step(levels, None)
        return self.apply_head(levels[0], levels[1]), deepest

    @torch.jit.unused
    def _repeated_modules(self, engine: str) -> list[tuple[str, nn.Module]]:
        """Names and modules of which the engine makes a second forward pass."""
        if engine == "native":
            return list(self.named_modules())
        couplings = [(f"steps.{i}", step) for i, step in enumerate(self.steps) if isinstance(step, Residual)]
        return [pair for prefix, step in couplings for pair in step.named_modules(prefix=prefix)]

    @torch.compiler.disable
    def _train(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        all_factors = [step.draw_factors(x1) for step in self.steps]  # type: ignore[operator]
        engine = self.engine if torch.is_grad_enabled() else "none"
        if engine in ("native", "memcnn"):
            require_no_tensor_hooks(self, engine)
        if engine != "none":
            require_repeatable(self._repeated_modules(engine), engine)
        if engine == "native":
            return run_native(self, all_factors, x1, x2)
        levels = [round_to_grid(x1), round_to_grid(x2)]
        if engine == "memcnn":
            levels, deepest = run_with_memcnn(list(self.steps), all_factors, levels, self.bottleneck)
            return self.apply_head(*levels), deepest
        deepest = x1
        for i, (step, factors) in enumerate(zip(self.steps, all_factors, strict=True)):
            if i == self.bottleneck:
                deepest = torch.cat(levels[-2:], 1)
            if engine == "checkpoint" and isinstance(step, Residual):
                x2, x1 = levels.pop(), levels.pop()
                levels += checkpoint(step.coupling, x1, x2, factors, use_reentrant=False)
            else:
                levels = step(levels, factors)
        return self.apply_head(*levels), deepest

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.jit.is_scripting() or not self.training:
            return self._run_plain(x1, x2)
        else:
            return self._train(x1, x2)
