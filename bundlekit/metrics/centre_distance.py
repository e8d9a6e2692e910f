"""MONAI metric with the distance from a predicted centre to the true one."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric

__all__ = ["CentreDistance"]


class CentreDistance(CumulativeIterationMetric):
    """Euclidean distance of predicted and true centres, |p - t| or |p - t| / d, and its mean over the images.

    The mean leaves out images whose distance is not known, for want of d; it is NaN where none is known.

    Shape:
        - y_pred: (N, spatial_dims).
        - y: the same; or (N, spatial_dims + 1), with d, a length such as the object's diameter, in the last column.

    Raises:
        ValueError: for a ``y`` of another shape, and from ``aggregate`` where no image was given.

    Source:
        Hu et al. 2018, "Deep feature transfer between localization and segmentation tasks", section 2.2.

    Example:
        >>> metric = CentreDistance()
        >>> metric(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.zeros(2, 2)).flatten().tolist(), metric.aggregate()
        ([5.0, 1.0], 3.0)
        >>> CentreDistance()(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0, 10.0]])).item()
        0.5
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs) -> torch.Tensor:
        dims = y_pred.shape[-1]
        if y is None or y.shape not in ((len(y_pred), dims), (len(y_pred), dims + 1)):
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"y is {shape}; expected {(len(y_pred), dims)}, or one column more with a length")
        distance = torch.linalg.vector_norm(y_pred.double() - y[:, :dims].double(), dim=1, keepdim=True)
        return distance if y.shape[1] == dims else distance / y[:, dims:].double()

    def aggregate(self) -> float:
        """The mean over all images since the last reset."""
        distances = self.get_buffer()
        if distances is None:
            raise ValueError("got no image; expected at least one: call the metric on a batch before aggregate()")
        return float(torch.nanmean(distances))
