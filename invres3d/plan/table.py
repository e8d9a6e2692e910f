"""Lists the combinations of network, engine, depth and precision, and formats them as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..chain.engine import is_installed
from .memory_units import format_bytes
from .prediction import NETWORKS, Prediction, Training

__all__ = ["format_table", "list_trainings"]


def list_trainings(
    num_couplings: Sequence[int], amps: Iterable[bool], vae: bool, num_blocks: Sequence[int] = (1,), **settings: Any
) -> list[Training]:
    """Every network with every installed engine, depth and precision.

    Args:
        num_couplings: depths of the invertible networks.
        amps: whether there is autocast; once each.
        vae: whether the invertible networks have the VAE branch; UNet3D has none.
        num_blocks: depths of UNet3D.
        settings: the other attributes of :class:`Training`.

    Example:
        >>> [training.engine for training in list_trainings([1], [False], True)][:3]
        ['none', 'checkpoint', 'none']
    """
    return [
        Training(network, engine, depth, amp, vae=vae and network != "UNet3D", **settings)
        for amp in amps
        for network, engines in NETWORKS.items()
        for depth in (num_blocks if network == "UNet3D" else num_couplings)
        for engine in engines
        if is_installed(engine)
    ]


def _row(prediction: Prediction, memory_bytes: int) -> list[str]:
    training = prediction.training
    amounts = (
        prediction.live_bytes,
        prediction.parameter_bytes,
        prediction.optimizer_bytes,
        prediction.total_bytes,
    )
    return [
        "yes" if prediction.total_bytes <= memory_bytes else "no",
        training.network,
        training.engine,
        str(training.depth),
        "bf16" if training.amp else "fp32",
        *map(format_bytes, amounts),
        f"{prediction.total_bytes / memory_bytes:.0%}",
    ]


def format_table(predictions: Iterable[Prediction], memory_bytes: int) -> str:
    """Lines of aligned columns, the leanest training first: whether it fits, what it is, its memory.

    Args:
        predictions: in any order.
        memory_bytes: what there is for the total.

    Example:
        >>> training = Training("UNet3D", "none")
        >>> print(format_table([Prediction(training, 3 * 2**20, 2**20, 2**21, 2**20, 0)], 2**23))
        fits  network  engine  depth  precision     live  parameters  optimiser    total  of memory
        yes   UNet3D   none        1       fp32  3.0 MiB     1.0 MiB    2.0 MiB  6.0 MiB        75%
    """
    head = ["fits", "network", "engine", "depth", "precision", "live", "parameters", "optimiser", "total"]
    rows = [[*head, "of memory"]]
    rows += [_row(prediction, memory_bytes) for prediction in sorted(predictions, key=lambda p: p.total_bytes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    num_words = 3  # to the left; the rest are numbers
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < num_words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
