"""Checks that a chain has nothing that the engines do not support, such as hooks, parametrizations or dropout."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import _has_any_global_hook

__all__ = [
    "UsedParameters",
    "is_plain",
    "is_same_size_conv",
    "require_no_tensor_hooks",
    "require_plain",
    "require_repeatable",
]

_KNOWN = ("torch.nn.modules.", "invres3d.")  # what others make of these classes may have a forward of its own
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _what_hides(module: nn.Module) -> str | None:
    if getattr(module, "_is_replica", False):
        return "DataParallel's copies of its parameters (DistributedDataParallel works)"
    if hasattr(module, "parametrizations"):
        return "a parametrization"
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        return "a hook"
    if _has_any_global_hook():
        return "a hook of all modules"
    if "forward" in vars(module):
        return "a forward method that was replaced"
    if not type(module).__module__.startswith(_KNOWN):
        return f"the class {type(module).__module__}.{type(module).__qualname__}"
    return None


def is_plain(module: nn.Module) -> bool:
    """Whether computing with the module's parameters does what calling the module does.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> handle = layer.register_forward_hook(lambda *_: None)
        >>> is_plain(layer), is_plain(nn.Linear(2, 2))
        (False, True)
    """
    return _what_hides(module) is None


def is_same_size_conv(layer: nn.Module, kernel_size: int) -> bool:
    """Whether calling a layer is a convolution by a cube, padded with zeros to the same size, and nothing else.

    Computing with the weights of such a layer, in parts, gives the same as calling it.

    Args:
        layer: a module without hooks.
        kernel_size: edge of the cube, an odd number.

    Example:
        >>> is_same_size_conv(nn.Conv3d(2, 4, 3, padding=1), 3)
        True
        >>> is_same_size_conv(nn.Conv3d(2, 4, 3, padding=1, padding_mode="reflect"), 3)
        False
    """
    return (
        type(layer) is nn.Conv3d
        and is_plain(layer)
        and layer.kernel_size == (kernel_size,) * 3
        and (torch.jit.is_tracing() or layer.weight.shape[2:] == layer.kernel_size)
        and layer.padding in ((kernel_size // 2,) * 3, "same")
        and layer.padding_mode == "zeros"
        and layer.stride == layer.dilation == (1, 1, 1)
        and layer.groups == 1
    )


def _draws_random_numbers(module: nn.Module) -> bool:
    return (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, nn.RReLU)


def require_repeatable(modules: Iterable[tuple[str, nn.Module]], engine: str) -> None:
    """Make sure that a second forward pass gives the same and leaves nothing behind.

    Args:
        modules: those that the engine runs twice, with their names.
        engine: what the error calls the engine.

    Raises:
        RuntimeError: where a module in training draws random numbers, unless the engine is "checkpoint", which repeats
            them, or has running statistics, which the second pass would update again.

    Example:
        >>> require_repeatable(nn.Sequential(nn.Dropout3d(0.5)).named_modules(), "native")
        Traceback (most recent call last):
        RuntimeError: 0 in the chain is a Dropout3d, whose random numbers the native engine cannot repeat; expected \
none: use the network's argument dropout, or engine='checkpoint'
    """
    for name, module in modules:
        if not module.training:
            continue
        kind = type(module).__name__
        if engine != "checkpoint" and _draws_random_numbers(module):
            raise RuntimeError(
                f"{name} in the chain is a {kind}, whose random numbers the {engine} engine cannot repeat; expected "
                "none: use the network's argument dropout, or engine='checkpoint'"
            )
        if getattr(module, "track_running_stats", False):
            raise RuntimeError(
                f"{name} in the chain is a {kind} with track_running_stats=True, whose statistics the {engine} engine "
                "would update twice; expected a norm without them: use GroupNorm, or engine='none'"
            )


def require_plain(chain: nn.Module) -> None:
    """Make sure that no module in the chain has hooks, a parametrization, copied parameters or a class of others.

    Gradients would not reach what is behind them, and hooks would never be called.

    Args:
        chain: a module; its own hooks do not matter.

    Raises:
        RuntimeError: where one has.

    Example:
        >>> chain = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
        >>> require_plain(chain)
        Traceback (most recent call last):
        RuntimeError: 0 in the chain has a parametrization, which the native engine does not support; expected plain \
modules: remove it, or use engine='checkpoint'
    """
    for name, module in chain.named_modules():
        what = _what_hides(module) if module is not chain else None
        if what is not None:
            raise RuntimeError(
                f"{name} in the chain has {what}, which the native engine does not support; expected plain modules: "
                "remove it, or use engine='checkpoint'"
            )


def require_no_tensor_hooks(chain: nn.Module, engine: str) -> None:
    """Make sure that no parameter has a hook for its gradient.

    Such a hook would be called on each part of the gradient and once more on their sum.

    Args:
        chain: a module.
        engine: what the error calls the engine.

    Raises:
        RuntimeError: where one has.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> handle = layer.bias.register_hook(lambda grad: 2 * grad)
        >>> require_no_tensor_hooks(layer, "native")
        Traceback (most recent call last):
        RuntimeError: bias in the chain has a hook for its gradient, which the native engine would call more than \
once; expected none: use register_post_accumulate_grad_hook, or engine='checkpoint'
    """
    for name, parameter in chain.named_parameters():
        if parameter._backward_hooks:
            raise RuntimeError(
                f"{name} in the chain has a hook for its gradient, which the {engine} engine would call more than "
                "once; expected none: use register_post_accumulate_grad_hook, or engine='checkpoint'"
            )


class UsedParameters:
    """The parameters that a forward pass used, to tell whether its backward pass would use the same.

    Args:
        chain: the module.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> used = UsedParameters(layer)
        >>> used.are_those_of(layer)
        True
        >>> with torch.no_grad():
        ...     _ = layer.bias.add_(1)
        >>> used.are_those_of(layer)
        False
    """

    def __init__(self, chain: nn.Module) -> None:
        self._state = self._state_of(chain)
        self.to_train = tuple(p for p in chain.parameters() if p.requires_grad)

    @staticmethod
    def _state_of(chain: nn.Module) -> list[tuple[nn.Parameter, int]]:
        return [(p, p._version) for p in chain.parameters()]

    def are_those_of(self, chain: nn.Module) -> bool:
        """Whether the chain has the same tensors, and nobody changed them in place."""
        now = self._state_of(chain)
        pairs = zip(now, self._state, strict=False)
        return len(now) == len(self._state) and all(p is q and n == m for (p, n), (q, m) in pairs)
