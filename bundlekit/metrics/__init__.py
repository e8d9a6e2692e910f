"""Metrics of segmentations that MONAI lacks."""

from .boundaries import grow_cells, label_cells, pixel_error, pixel_f_error, rand_error, rand_info_scores
from .boundary_metrics import BoundaryMetrics
from .centre_distance import CentreDistance
from .handlers import MetricHandlers
from .label_scores import SplitMergeScores, info_scores, rand_scores
from .matches import THRESHOLDS, ObjectMatches, match_counts
from .object_metrics import ObjectMetrics
from .object_statistics import ObjectStatistics, object_statistics
from .surface_distance import HausdorffDistanceMm
from .warping import warp_truth, warping_error

__all__ = [
    "THRESHOLDS",
    "BoundaryMetrics",
    "CentreDistance",
    "HausdorffDistanceMm",
    "MetricHandlers",
    "ObjectMatches",
    "ObjectMetrics",
    "ObjectStatistics",
    "SplitMergeScores",
    "grow_cells",
    "info_scores",
    "label_cells",
    "match_counts",
    "object_statistics",
    "pixel_error",
    "pixel_f_error",
    "rand_error",
    "rand_info_scores",
    "rand_scores",
    "warp_truth",
    "warping_error",
]
