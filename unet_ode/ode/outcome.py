"""Statistics of a solve, and the error of a solve that fails."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["SolverError", "SolverStats"]


class SolverError(RuntimeError, ArithmeticError):
    """The dynamics cannot be integrated; the message names block, sample, t, dt and the number of evaluations.

    Example:
        >>> raise SolverError("block 'up4', sample 0: ...")
        Traceback (most recent call last):
        unet_ode.ode.outcome.SolverError: block 'up4', sample 0: ...
    """


@dataclass(frozen=True)
class SolverStats:
    """What a forward pass took, for each sample.

    Shape:
        nfe, accepted, rejected: (N,), int64: evaluations of the field, steps taken, steps tried in vain.

    Example:
        >>> SolverStats(nfe=torch.tensor([14]), accepted=torch.tensor([4]), rejected=torch.tensor([0])).nfe
        tensor([14])
    """

    nfe: torch.Tensor
    accepted: torch.Tensor
    rejected: torch.Tensor
