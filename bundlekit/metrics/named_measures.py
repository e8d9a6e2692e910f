"""Base class of MONAI metrics whose scores are selected by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from monai.config import NdarrayOrTensor
from monai.metrics import CumulativeIterationMetric
from monai.utils import convert_to_tensor, ensure_tuple

__all__ = ["NamedMeasures"]


class NamedMeasures(CumulativeIterationMetric):
    """Gathers a row of numbers for each image; a subclass works out the ``names`` among its ``measures`` from them."""

    measures: ClassVar[Mapping[str, Callable[..., float]]]

    def __init__(self, names: str | Sequence[str]) -> None:
        super().__init__()
        self.names = ensure_tuple(names)
        if not self.names or not self.measures.keys() >= set(self.names):
            raise ValueError(f"names are {self.names}; expected some of {sorted(self.measures)}")

    def __call__(  # type: ignore[override]  # MONAI's takes y = None and no arrays
        self, y_pred: NdarrayOrTensor | Sequence[NdarrayOrTensor], y: NdarrayOrTensor | Sequence[NdarrayOrTensor]
    ) -> torch.Tensor:
        """The row of each image of a batch, which is kept for :meth:`aggregate`."""
        return super().__call__(convert_to_tensor(y_pred), convert_to_tensor(y))  # type: ignore[return-value]

    def _rows(self) -> torch.Tensor:
        """The rows of all images since the last reset; raises ValueError where there is none."""
        rows = self.get_buffer()
        if rows is None:
            raise ValueError("got no image; expected at least one: call the metric on a batch before aggregate()")
        return rows
