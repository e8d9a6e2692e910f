"""MONAI handlers for metrics whose scores are selected by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.handlers import IgniteMetricHandler, from_engine

from .named_measures import NamedMeasures

__all__ = ["MetricHandlers"]


class MetricHandlers(dict[str, Any]):
    """A handler for each measure of a metric by the name of its score, for ``additional_metrics`` of MONAI's engines.

    Args:
        metric: one of the metrics here, such as ``ObjectMatches``.
        names: measures to report as the metric gives them by default, each as ``prefix + name``.
        per_image: measures to report as means over images, with each image's own value among the details; each as
            ``prefix + name + "_per_image"``. The metric must take ``pooled``.
        prefix: what the names of the scores begin with.
        keys: prediction and truth in the engine's output.
        others: further handlers by the names of their scores.

    Example:
        >>> from bundlekit.metrics import ObjectMatches
        >>> list(MetricHandlers(ObjectMatches, names=["f1_50", "ap"], per_image=["ap"], prefix="val_object_"))
        ['val_object_f1_50', 'val_object_ap', 'val_object_ap_per_image']
    """

    def __init__(
        self,
        metric: Callable[..., NamedMeasures],
        names: Sequence[str] = (),
        per_image: Sequence[str] = (),
        prefix: str = "val_",
        keys: Sequence[str] = ("pred", "label"),
        others: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(others or {})
        metrics = {name: metric(name) for name in names}
        metrics |= {f"{name}_per_image": metric(name, pooled=False) for name in per_image}
        for name, measure in metrics.items():
            self[prefix + name] = IgniteMetricHandler(
                metric_fn=measure,
                save_details=not getattr(measure, "pooled", False),  # rows of pooled measures are counts, not scores
                output_transform=from_engine(list(keys)),
            )
