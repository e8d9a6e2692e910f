"""MONAI metric with the scores of membrane maps."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch

from .boundaries import pixel_error, rand_error, rand_info_scores
from .named_measures import NamedMeasures
from .warping import warping_error

__all__ = ["BoundaryMetrics"]


class BoundaryMetrics(NamedMeasures):
    """Measures of each predicted membrane map, gathered over batches; their mean over images.

    Args:
        names: one or several of "pixel_error", "rand_error" (1 - v_rand), "rand_error_2012" (:func:`rand_error` with
            ``thin=False``), "v_rand" and "v_info" (f of :func:`rand_info_scores`), "warping_error".

    Shape:
        - prediction and truth: (N, 1, H, W), or a list of (1, H, W); 1 membrane, 0 cell.
        - result of a call, and of ``get_buffer()`` over all calls: (N, number of names).
        - result of ``aggregate()``: (number of names,). A measure of cells is NaN for a truth without a cell pixel.

    Raises:
        ValueError: when a name is unknown, when prediction and truth do not have the shapes above, and as the measure
            does; ``aggregate()`` when there was no image yet.

    Example:
        >>> metric = BoundaryMetrics(["pixel_error", "warping_error"])
        >>> prediction, truth = torch.zeros(2, 1, 1, 3, 4)  # one image of one channel each
        >>> prediction[..., 1] = truth[..., 2] = 1
        >>> metric(prediction, truth)
        tensor([[0.5000, 0.0000]])
        >>> metric.aggregate()
        tensor([0.5000, 0.0000])
    """

    measures: ClassVar = {
        "pixel_error": pixel_error,
        "rand_error": rand_error,
        "rand_error_2012": partial(rand_error, thin=False),
        "v_rand": lambda prediction, truth: rand_info_scores(prediction, truth)[0].f,
        "v_info": lambda prediction, truth: rand_info_scores(prediction, truth)[1].f,
        "warping_error": warping_error,
    }

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        if y_pred.shape != y.shape or y_pred.ndim != 4 or y_pred.shape[1] != 1:
            raise ValueError(
                f"prediction has shape {tuple(y_pred.shape)} and truth {tuple(y.shape)}; expected (N, 1, H, W), both: "
                "threshold or argmax the network's output to one channel"
            )
        scores = [[self._measure(name, p[0], t[0]) for name in self.names] for p, t in zip(y_pred, y, strict=True)]
        return torch.tensor(scores, device=y_pred.device)

    def _measure(self, name: str, prediction: torch.Tensor, truth: torch.Tensor) -> float:
        needs_cells = name not in ("pixel_error", "warping_error")
        return float("nan") if needs_cells and bool((truth != 0).all()) else self.measures[name](prediction, truth)

    def aggregate(self) -> torch.Tensor:
        """The mean of each measure over all images since the last reset for which it is defined."""
        return self._rows().nanmean(dim=0)
