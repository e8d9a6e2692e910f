"""Object-level F1, Dice and Hausdorff distance of a label map.

The measures of the GlaS contest. In a label map the pixels of one positive id are one object, in one piece or several;
0 is background.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np
from monai.config import NdarrayOrTensor
from scipy import sparse
from scipy.spatial.distance import directed_hausdorff
from skimage.segmentation import find_boundaries

from .label_maps import read_object_map, require_same_shape

__all__ = ["ObjectStatistics", "object_statistics"]


@dataclass(frozen=True)
class ObjectStatistics:
    """The counts and sums from which the scores of objects are computed; they can be added over images.

    With the true objects G_i, the predicted objects S_j and the partner X* of each (:func:`object_statistics`):

    - ``f1`` = 2 TP / (2 TP + FP + FN), best 1.
    - ``object_dice`` = (sum_i |G_i| Dice(G_i, G_i*) / sum_i |G_i| + sum_j |S_j| Dice(S_j, S_j*) / sum_j |S_j|) / 2,
      best 1.
    - ``object_hausdorff``: the same with the Hausdorff distance, in pixels, best 0; NaN where it was left out.

    Each of the last two is the mean of two sides; a side without any object is left out, which makes ``object_dice`` 0,
    as no true or predicted object then has a partner. Where neither side has an object nothing is wrong: 1, 1 and 0.

    Args:
        num_tp: predicted objects that detect a true one.
        num_fp: predicted objects that do not.
        num_fn: true objects that are not detected.
        truth_px: area of all true objects, in pixels (voxels).
        prediction_px: area of all predicted objects, likewise.
        truth_dice: sum over the true objects of area times Dice.
        prediction_dice: sum over the predicted objects of area times Dice.
        truth_hausdorff: sum over the true objects of area times Hausdorff distance.
        prediction_hausdorff: sum over the predicted objects of area times Hausdorff distance.

    Source:
        Sirinukunwattana et al. 2017, "Gland segmentation in colon histology images: the GlaS challenge contest",
        Medical Image Analysis 35, 489-502, where weights and counts are taken over all images together.

    Example:
        >>> one_missed = ObjectStatistics(0, 0, 1, 5, 0, 0, 0, 50, 0)
        >>> one_right = ObjectStatistics(1, 0, 0, 15, 15, 15, 15, 0, 0)
        >>> both = one_missed + one_right
        >>> both.object_dice, both.object_hausdorff  # (15 / 20 + 15 / 15) / 2 and (50 / 20 + 0 / 15) / 2
        (0.875, 1.25)
    """

    num_tp: float
    num_fp: float
    num_fn: float
    truth_px: float
    prediction_px: float
    truth_dice: float
    prediction_dice: float
    truth_hausdorff: float
    prediction_hausdorff: float

    def __add__(self, other: ObjectStatistics) -> ObjectStatistics:
        return ObjectStatistics(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def f1(self) -> float:
        num_objects = 2 * self.num_tp + self.num_fp + self.num_fn  # of both sides
        return 2 * self.num_tp / num_objects if num_objects else 1.0

    @property
    def object_dice(self) -> float:
        return self._mean_of_sides(self.truth_dice, self.prediction_dice, best=1.0)

    @property
    def object_hausdorff(self) -> float:
        return self._mean_of_sides(self.truth_hausdorff, self.prediction_hausdorff, best=0.0)

    def _mean_of_sides(self, truth: float, prediction: float, best: float) -> float:
        sides = ((truth, self.truth_px), (prediction, self.prediction_px))
        means = [weighted / area_px for weighted, area_px in sides if area_px]
        return sum(means) / len(means) if means else best


class _Objects:
    """The objects of a label map, numbered from 1 in the order of their first pixels, so that their ids decide nothing.

    Item 0 of each attribute but ``numbers`` stands for the background, and is empty or 0.
    """

    def __init__(self, image: NdarrayOrTensor, name: str) -> None:
        labels = read_object_map(image, name)
        ids, first_pixels, places = np.unique(labels, return_index=True, return_inverse=True)
        first_pixels[ids == 0] = -1
        numbers = np.argsort(np.argsort(first_pixels)) + (0 not in ids)
        self.numbers = numbers[places].reshape(labels.shape)
        self.areas_px = np.bincount(self.numbers[self.numbers > 0], minlength=numbers.max() + 1)

    def _coordinates(self, mask: np.ndarray) -> list[np.ndarray]:
        numbers = self.numbers[mask]
        ends = np.cumsum(np.bincount(numbers, minlength=len(self.areas_px)))
        return np.split(np.argwhere(mask)[np.argsort(numbers, kind="stable")], ends[:-1])

    @cached_property
    def pixels(self) -> list[np.ndarray]:
        return self._coordinates(self.numbers > 0)

    @cached_property
    def borders(self) -> list[np.ndarray]:
        """Those pixels that have a pixel of something else at a side."""
        return self._coordinates(find_boundaries(self.numbers, mode="inner"))

    @cached_property
    def boxes(self) -> np.ndarray:
        """The first and last coordinate along each axis."""
        boxes = [[*pixels.min(axis=0), *pixels.max(axis=0)] for pixels in self.pixels[1:]]
        return np.array([[0] * 2 * self.numbers.ndim, *boxes])


def _partners(shared_px: sparse.csr_array, areas_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the object (column) that shares most pixels with each object (row), and how many; 0 for none.

    Of several with the same overlap the smaller object is taken, whose Dice is higher, and then the first.
    """
    rows, columns, overlaps_px = sparse.find(shared_px)
    order = np.lexsort((columns, areas_px[columns], -overlaps_px, rows))
    found, places = np.unique(rows[order], return_index=True)
    partners, largest_px = np.zeros((2, shared_px.shape[0]), dtype=int)
    partners[found], largest_px[found] = columns[order][places], overlaps_px[order][places]
    return partners[1:], largest_px[1:]


def _reach(source: _Objects, i: int, target: _Objects, j: int) -> float:
    """Largest distance from a pixel of object i to object j; from outside of j, a pixel of its border is nearest."""
    pixels = source.pixels[i]
    outside = pixels[target.numbers[tuple(pixels.T)] != j]
    return directed_hausdorff(outside, target.borders[j])[0] if len(outside) else 0.0


def _distance(own: _Objects, i: int, others: _Objects, j: int) -> float:
    return max(_reach(own, i, others, j), _reach(others, j, own, i))


def _distance_to_nearest(own: _Objects, i: int, others: _Objects) -> float:
    """The smallest Hausdorff distance of object i to any of the others; the image's diagonal where there is none.

    Objects whose boxes begin or end d pixels apart along an axis are at least d apart, so that most of the others need
    not be looked at.
    """
    smallest = float(np.linalg.norm(own.numbers.shape))
    at_least = np.abs(others.boxes - own.boxes[i]).max(axis=1)
    for j in np.argsort(at_least[1:]) + 1:
        if at_least[j] >= smallest:
            break
        smallest = min(smallest, _distance(own, i, others, j))
    return smallest


def _hausdorff_sum(own: _Objects, others: _Objects, partners: np.ndarray) -> float:
    """Sum over the own objects of area times Hausdorff distance to the partner, or to the nearest where it is 0."""
    distances = [
        _distance(own, i, others, j) if j else _distance_to_nearest(own, i, others)
        for i, j in enumerate(partners, start=1)
    ]
    return float(own.areas_px[1:] @ distances)


def _dice_sum(own: _Objects, others: _Objects, partners: np.ndarray, overlaps_px: np.ndarray) -> float:
    areas_px = own.areas_px[1:]
    return float(areas_px @ (2 * overlaps_px / (areas_px + others.areas_px[partners])))


def object_statistics(
    prediction: NdarrayOrTensor, truth: NdarrayOrTensor, *, hausdorff: bool = True
) -> ObjectStatistics:
    """The statistics of one image, from which F1, object-level Dice and Hausdorff distance follow.

    The partner of an object is the one of the other map that shares most pixels with it, however much of it lies on
    background; of several that share equally many the smallest, then the one whose first pixel comes first. A predicted
    object detects its partner where it covers at least half of the partner's pixels; each true object is detected at
    most once. An object without a partner has Dice 0, and its Hausdorff distance is the smallest to any object of the
    other map. Where the other map has no object at all, it is the image's diagonal, which is more than any distance
    within the image: an infinite one would drown all other objects.

    Args:
        prediction: predicted objects, integers; 0 is background, each other number an object.
        truth: true objects, likewise.
        hausdorff: whether to work out the distances, in pixels between centres of pixels, which take the longest; their
            sums are NaN otherwise.

    Shape:
        (H, W) or (H, W, D), both.

    Raises:
        ValueError: when a map does not hold integers >= 0, or when the shapes differ.

    Source:
        Sirinukunwattana et al. 2017, Medical Image Analysis 35, 489-502. Differs from the contest's programs: half of
        an object is enough to detect it, as the paper says, where they ask for more than half; the diagonal stands
        where they return infinity; equal overlaps are not decided by the objects' ids.

    Example:
        >>> truth = np.array([[1, 1, 1, 1, 0, 2]])
        >>> prediction = np.array([[0, 0, 7, 7, 7, 0]])
        >>> statistics = object_statistics(prediction, truth)
        >>> statistics.f1  # 7 covers half of 1; 2 is missed
        0.6666666666666666
        >>> statistics.object_dice  # (4 / 5 * 4 / 7 + 1 / 5 * 0 + 4 / 7) / 2
        0.5142857142857142
        >>> statistics.object_hausdorff  # 2 pixels from 1 to 7, 3 from 2 to 7: (4 / 5 * 2 + 1 / 5 * 3 + 2) / 2
        2.1
    """
    s, g = _Objects(prediction, "prediction"), _Objects(truth, "truth")
    require_same_shape(s.numbers, g.numbers)
    both = (s.numbers > 0) & (g.numbers > 0)
    pairs = s.numbers[both], g.numbers[both]
    shared_px = sparse.csr_array((np.ones_like(pairs[0]), pairs), shape=(len(s.areas_px), len(g.areas_px)))
    of_s, s_overlaps_px = _partners(shared_px, g.areas_px)
    of_g, g_overlaps_px = _partners(shared_px.T, s.areas_px)
    num_tp = len(np.unique(of_s[(of_s > 0) & (2 * s_overlaps_px >= g.areas_px[of_s])]))
    return ObjectStatistics(
        num_tp=num_tp,
        num_fp=len(of_s) - num_tp,
        num_fn=len(of_g) - num_tp,
        truth_px=float(g.areas_px.sum()),
        prediction_px=float(s.areas_px.sum()),
        truth_dice=_dice_sum(g, s, of_g, g_overlaps_px),
        prediction_dice=_dice_sum(s, g, of_s, s_overlaps_px),
        truth_hausdorff=_hausdorff_sum(g, s, of_g) if hausdorff else np.nan,
        prediction_hausdorff=_hausdorff_sum(s, g, of_s) if hausdorff else np.nan,
    )
