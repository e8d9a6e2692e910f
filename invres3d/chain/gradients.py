"""Computes gradients part by part, summed for the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

__all__ = ["ParameterGradients", "pull_back"]


class ParameterGradients:
    """Gradients of parameters, summed as they are found.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> parameter_grads = ParameterGradients()
        >>> for _ in range(2):
        ...     parameter_grads.add(weight, torch.ones(2))
        >>> parameter_grads[weight]
        tensor([2., 2.])
    """

    def __init__(self) -> None:
        self._sums: dict[torch.Tensor, torch.Tensor] = {}

    def add(self, parameter: torch.Tensor | None, gradient: torch.Tensor | None) -> None:
        if parameter is None or gradient is None or not parameter.requires_grad:
            return
        gradient = gradient.to(parameter.dtype)
        so_far = self._sums.get(parameter)
        self._sums[parameter] = gradient if so_far is None else so_far + gradient

    def __getitem__(self, parameter: torch.Tensor) -> torch.Tensor | None:
        return self._sums.get(parameter)


def pull_back(
    function: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    parameters: Iterable[nn.Parameter],
    grad: torch.Tensor,
    parameter_grads: ParameterGradients,
    use: Callable[[torch.Tensor], None] | None = None,
) -> list[torch.Tensor]:
    """Gradients by ``inputs`` of ``sum(grad * function(*inputs))``; adds the parameters' to ``parameter_grads``.

    Parameters that the function does not use get none.

    Args:
        use: called with the function's output, which it must not change. The output is freed before the gradients are
            computed.

    Example:
        >>> pull_back(torch.square, [torch.tensor(3.0)], [], torch.tensor(1.0), ParameterGradients())
        [tensor(6.)]
    """
    wanted = [p for p in parameters if p.requires_grad]
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        output = function(*leaves)
    if use is not None:
        use(output.detach())
    grad = grad.to(output.dtype)
    edge = torch.autograd.graph.get_gradient_edge(output)
    del output
    grads = torch.autograd.grad(edge, [*leaves, *wanted], grad, allow_unused=True)
    for parameter, gradient in zip(wanted, grads[len(leaves) :], strict=True):
        parameter_grads.add(parameter, gradient)
    return [torch.zeros_like(x) if found is None else found for x, found in zip(inputs, grads, strict=False)]
