"""Windows of Ciresan's classifier: sharp and dense in the middle, blurred and sparse around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy, ensure_tuple_rep
from scipy import ndimage

from .dictionary import DictionaryTransform

__all__ = ["Foveate", "Foveated", "NonUniformSample", "NonUniformSampled"]


class Foveate(Transform):
    """Blurs a window the more the farther from its centre: out(x) is the image blurred with sigma(r), at x.

    sigma(r) = sigma_px * clip((r - fovea_px) / (rim - fovea_px), 0, 1), with r the distance from the window's centre
    and rim the distance of the nearest edge, (shortest side - 1) / 2. The blur is Gaussian, on the window mirrored at
    its edge. It is computed for ``num_levels`` equal steps of sigma; values in between are interpolated linearly.

    Args:
        fovea_px: radius around the centre within which nothing changes, in pixels.
        sigma_px: standard deviation of the blur at the rim and beyond, in pixels.
        num_levels: steps of sigma above 0.

    Shape:
        (channels, *spatial) to the same, float32.

    Raises:
        ValueError: when an argument is out of range or the fovea reaches the window's edge.

    Source:
        The idea is from Ciresan et al. 2012 (see :class:`.BalancedSampling`), section 2. The Gaussian and its growth
        with the distance are this project's choice, not the paper's.

    Example:
        >>> Foveate(fovea_px=1, sigma_px=1.0)(np.eye(5)[None])[0, 2].round(2)
        array([0.19, 0.  , 1.  , 0.  , 0.19], dtype=float32)
    """

    def __init__(self, fovea_px: float, sigma_px: float, num_levels: int = 8) -> None:
        if fovea_px < 0 or sigma_px < 0 or num_levels < 1:
            raise ValueError(
                f"fovea_px is {fovea_px}, sigma_px {sigma_px}, num_levels {num_levels}; expected >= 0, >= 0, >= 1"
            )
        self.fovea_px, self.sigma_px, self.num_levels = fovea_px, sigma_px, num_levels

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        array = convert_to_numpy(img, dtype=np.float64)
        sides = array.shape[1:]
        rim = (min(sides) - 1) / 2
        if self.fovea_px >= rim:
            raise ValueError(
                f"fovea_px is {self.fovea_px} and the window {sides}; expected less than {rim}: reduce fovea_px"
            )
        r = np.sqrt(sum(x**2 for x in np.ogrid[tuple(slice(-(n - 1) / 2, n / 2) for n in sides)]))
        level = self.num_levels * np.clip((r - self.fovea_px) / (rim - self.fovea_px), 0, 1)
        out = np.zeros_like(array)
        for k in range(self.num_levels + 1):
            sigmas = [0, *[self.sigma_px * k / self.num_levels] * len(sides)]
            out += np.maximum(1 - np.abs(level - k), 0) * ndimage.gaussian_filter(array, sigmas, mode="mirror")
        return convert_to_dst_type(out, img, dtype=np.float32)[0]


class Foveated(DictionaryTransform):
    """:class:`Foveate` of each of ``keys``; the other arguments are as in the class.

    Example:
        >>> Foveated("image", fovea_px=1, sigma_px=1.0)({"image": np.eye(5)[None]})["image"].shape
        (1, 5, 5)
    """

    def __init__(
        self,
        keys: KeysCollection,
        fovea_px: float,
        sigma_px: float,
        num_levels: int = 8,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, keys, Foveate(fovea_px, sigma_px, num_levels), allow_missing_keys)


class NonUniformSample(Transform):
    """Samples a window with steps that are 1 pixel at its centre and grow linearly towards its edge.

    Along each axis the output pixel at distance u from the centre shows the window at the distance
    s(u) = u + (M - m) / (m - f)^2 max(u - f, 0)^2, with M = (window - 1) / 2, m = (output_size - 1) / 2 and
    f = fovea_px, so that s(m) = M: the output spans the whole window. Interpolation is linear along each axis.
    The steps are wider than a pixel, so blur first (:class:`Foveate`) where fine texture would alias.

    Args:
        output_size: side of the output in pixels, one number or one for each axis.
        fovea_px: half side of the central square that is kept pixel by pixel.

    Shape:
        (channels, *window) to (channels, *output_size), float32.

    Raises:
        ValueError: unless 0 <= f < m <= M and window and output are both odd or both even.

    Source:
        The idea is from Ciresan et al. 2012 (see :class:`.BalancedSampling`), section 2. The formula is this
        project's, not the paper's.

    Example:
        >>> NonUniformSample(output_size=5, fovea_px=1)(np.arange(11.0)[None])
        array([[ 0.,  4.,  5.,  6., 10.]], dtype=float32)
    """

    def __init__(self, output_size: Sequence[int] | int, fovea_px: float) -> None:
        self.output_size, self.fovea_px = output_size, fovea_px

    def _positions(self, window: int, size: int) -> np.ndarray:
        half_window, half_size, f = (window - 1) / 2, (size - 1) / 2, self.fovea_px
        if not 0 <= f < half_size <= half_window or (window - size) % 2:
            raise ValueError(
                f"fovea_px is {f}, output_size {size}, window {window}; expected 0 <= fovea_px < (output_size - 1) / 2 "
                "<= (window - 1) / 2, and both odd or both even: change output_size or the window size"
            )
        u = np.arange(size) - half_size
        stretch = (half_window - half_size) / (half_size - f) ** 2
        return half_window + u + np.sign(u) * stretch * np.maximum(np.abs(u) - f, 0) ** 2

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        array = convert_to_numpy(img, dtype=np.float64)
        sizes = ensure_tuple_rep(self.output_size, array.ndim - 1)
        grid = np.meshgrid(*map(self._positions, array.shape[1:], sizes), indexing="ij")
        out = np.stack([ndimage.map_coordinates(channel, grid, order=1, mode="nearest") for channel in array])
        return convert_to_dst_type(out, img, dtype=np.float32)[0]


class NonUniformSampled(DictionaryTransform):
    """:class:`NonUniformSample` of each of ``keys``; the other arguments are as in the class.

    Example:
        >>> NonUniformSampled("image", output_size=5, fovea_px=1)({"image": np.zeros((1, 11, 11))})["image"].shape
        (1, 5, 5)
    """

    def __init__(
        self, keys: KeysCollection, output_size: Sequence[int] | int, fovea_px: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, keys, NonUniformSample(output_size, fovea_px), allow_missing_keys)
