"""Checks that a chain has nothing that the engines do not support, such as hooks or parametrizations."""

from __future__ import annotations

from torch import nn

__all__ = ["UsedParameters", "is_plain", "require_no_tensor_hooks", "require_plain"]

_KNOWN = ("torch.nn.modules.", "invres3d.")  # what others make of these classes may have a forward of its own
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _what_hides(module: nn.Module) -> str | None:
    if getattr(module, "_is_replica", False):
        return "DataParallel's copies of its parameters (DistributedDataParallel works)"
    if hasattr(module, "parametrizations"):
        return "a parametrization"
    if any(getattr(module, hooks, None) for hooks in _HOOKS):
        return "a hook"
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
        >>> import torch
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
