"""Weight maps for training and window transforms, as MONAI transforms on arrays and dictionaries."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy, ensure_tuple, ensure_tuple_rep
from scipy import ndimage

__all__ = [
    "BalancedSampling",
    "BalancedSamplingd",
    "BorderWeightMap",
    "BorderWeightMapd",
    "Foveate",
    "Foveated",
    "NonUniformSample",
    "NonUniformSampled",
]


def _one_channel(label: NdarrayOrTensor) -> np.ndarray:
    array = convert_to_numpy(label)
    if array.shape[0] != 1:
        raise ValueError(f"the label has {array.shape[0]} channels; expected 1: pick or merge the channels first")
    return array[0]


def _two_nearest(cells: np.ndarray, reach_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest and second nearest component of ``cells``; infinity beyond ``reach_px``."""
    nearest, second = np.full((2, *cells.shape), np.inf)
    components, _ = ndimage.label(cells)
    for number, box in enumerate(ndimage.find_objects(components), start=1):
        # One component at a time, in its bounding box widened by the reach: exact there, and small.
        around = tuple(slice(max(s.start - reach_px, 0), s.stop + reach_px) for s in box)
        distance = ndimage.distance_transform_edt(components[around] != number)
        first = nearest[around]
        second[around] = np.minimum(second[around], np.maximum(first, distance))
        nearest[around] = np.minimum(first, distance)
    return nearest, second


class BorderWeightMap(Transform):
    """Weights that stress thin borders between cells: w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances in pixels to the nearest and the second nearest cell, between pixel centres; inside a
    cell d1 is 0. Cells are connected components (neighbours share an edge or face). w_c = N / (K N_class), with N
    pixels, N_class of them of the pixel's class, and K classes present, balances the classes; its mean over the image
    is 1. With fewer than two cells w = w_c. Distances beyond 6 sigma are taken as infinite, which changes w by at
    most 1.6e-8 w0.

    Args:
        w0: weight of a border of no width.
        sigma: reach of the border term in pixels.
        cell_value: the label of cells; the other value is membrane.

    Shape:
        (1, *spatial) to (1, *spatial), float32.

    Raises:
        ValueError: for sigma <= 0, several channels, and labels that are not binary or lack ``cell_value``.

    Source:
        Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
        section 3, equation 2.

    Differs from / not stated in the paper:
        The paper does not say how w_c balances the classes. It measures the distance to a cell's border; here it is
        the distance to the cell, which is the same outside cells.

    Example:
        >>> label = np.array([[[0, 1, 0, 0]]])
        >>> BorderWeightMap()(label).round(3)  # 2 / 3 or 2, plus 10 exp(-d^2 / 50) with d = 2, 2, 2, 3
        array([[[ 9.898, 11.231,  9.898,  9.019]]], dtype=float32)
    """

    def __init__(self, w0: float = 10.0, sigma: float = 5.0, cell_value: int = 0) -> None:
        if sigma <= 0:
            raise ValueError(f"sigma is {sigma}; expected a distance > 0 in pixels")
        self.w0, self.sigma, self.cell_value = w0, sigma, cell_value

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        array = _one_channel(label)
        values, index, counts = np.unique(array, return_inverse=True, return_counts=True)
        if len(values) > 2 or (len(values) == 2 and self.cell_value not in values):
            raise ValueError(
                f"the label has the values {values[:5].tolist()} ({len(values)} in all); expected two, one of them "
                f"cell_value {self.cell_value}: threshold the label (AsDiscreted) or give its cell_value"
            )
        balance = (array.size / (len(values) * counts))[index].reshape(array.shape)
        d1, d2 = _two_nearest(array == self.cell_value, int(np.ceil(6 * self.sigma)))
        weight = balance + self.w0 * np.exp(-((d1 + d2) ** 2) / (2 * self.sigma**2))
        return convert_to_dst_type(weight[None], label, dtype=np.float32)[0]


class _Mapped(MapTransform):
    """Applies ``transform`` to each key and stores the result under the output key of the same place."""

    def __init__(self, keys, output_keys, transform, allow_missing_keys) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = ensure_tuple(output_keys)
        if len(self.output_keys) != len(self.keys):
            raise ValueError(
                f"got {len(self.output_keys)} output keys for {len(self.keys)} keys; give one for each key"
            )
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            d[output_key] = self.transform(d[key])
        return d


class BorderWeightMapd(_Mapped):
    """:class:`BorderWeightMap` of ``keys``, stored under ``output_key``; the other arguments are those of the class.

    Example:
        >>> sorted(BorderWeightMapd()({"label": np.array([[[0, 1, 0]]])}))
        ['label', 'weight']
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_key: KeysCollection = "weight",
        w0: float = 10.0,
        sigma: float = 5.0,
        cell_value: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_key, BorderWeightMap(w0, sigma, cell_value), allow_missing_keys)


class BalancedSampling(RandomizableTransform):
    """Weights that are 1 at n membrane and n other pixels, drawn without replacement, and 0 elsewhere.

    n = min(num_samples, membrane pixels, other pixels); so an image with only one class gets no weight at all, and
    classes stay balanced over any set of images. This is for training on whole images. To draw windows around
    balanced pixels, MONAI has ``RandCropByPosNegLabeld`` and ``RandCropByLabelClassesd``.

    Args:
        num_samples: pixels to draw of each class at most; None draws all of the rarer class.

    Shape:
        (1, *spatial), where one class is zero and the other is not, to (1, *spatial), float32.

    Raises:
        ValueError: when the label has several channels.

    Source:
        Ciresan, Giusti, Gambardella, Schmidhuber 2012, "Deep neural networks segment neuronal membranes in electron
        microscopy images", NIPS 25, section 2: all membrane pixels and as many others, drawn at random.

    Example:
        >>> weight = BalancedSampling().set_random_state(0)(np.array([[1, 0, 0, 1, 0, 0]]))
        >>> weight[0, [0, 3]], weight.sum()
        (array([1., 1.], dtype=float32), np.float32(4.0))
    """

    def __init__(self, num_samples: int | None = None) -> None:
        super().__init__(prob=1.0)
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; expected at least 1, or None for all of the rarer class")
        self.num_samples = num_samples
        self.drawn = np.empty(0, dtype=int)

    def randomize(self, data: np.ndarray) -> None:
        super().randomize(None)
        classes = [np.flatnonzero(data != 0), np.flatnonzero(data == 0)]
        available = min(len(pixels) for pixels in classes)
        n = available if self.num_samples is None else min(self.num_samples, available)
        self.drawn = np.concatenate([self.R.choice(pixels, n, replace=False) for pixels in classes])

    def __call__(self, label: NdarrayOrTensor) -> NdarrayOrTensor:
        array = _one_channel(label)
        self.randomize(array)
        weight = np.zeros((1, *array.shape), dtype=np.float32)
        weight.flat[self.drawn] = 1
        return convert_to_dst_type(weight, label, dtype=np.float32)[0]


class BalancedSamplingd(RandomizableTransform, _Mapped):
    """:class:`BalancedSampling` of ``keys``, stored under ``output_key``.

    Example:
        >>> float(BalancedSamplingd()({"label": np.array([[0, 1, 0]])})["weight"].sum())
        2.0
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        output_key: KeysCollection = "weight",
        num_samples: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        _Mapped.__init__(self, keys, output_key, BalancedSampling(num_samples), allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None):
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self


class Foveate(Transform):
    """Blurs a window the more the farther from its centre: out(x) is the image blurred with sigma(r), at x.

    sigma(r) = sigma_px * clip((r - fovea_px) / (rim - fovea_px), 0, 1), with r the distance from the window's centre
    and rim that of the nearest edge, (shortest side - 1) / 2. The blur is Gaussian, on the window mirrored at its
    edge. It is computed for ``num_levels`` equal steps of sigma; values in between are interpolated linearly.

    Args:
        fovea_px: radius around the centre within which nothing changes, in pixels.
        sigma_px: standard deviation of the blur at the rim and beyond, in pixels.
        num_levels: steps of sigma above 0.

    Shape:
        (channels, *spatial) to the same, float32.

    Raises:
        ValueError: when an argument is out of range or the fovea reaches the window's edge.

    Source:
        The idea is from Ciresan et al. 2012 (see :class:`BalancedSampling`), section 2. The Gaussian and its growth
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
                f"fovea_px is {self.fovea_px} and the window {sides}; expected less than {rim}: shrink the fovea"
            )
        r = np.sqrt(sum(x**2 for x in np.ogrid[tuple(slice(-(n - 1) / 2, n / 2) for n in sides)]))
        level = self.num_levels * np.clip((r - self.fovea_px) / (rim - self.fovea_px), 0, 1)
        out = np.zeros_like(array)
        for k in range(self.num_levels + 1):
            sigmas = [0, *[self.sigma_px * k / self.num_levels] * len(sides)]
            out += np.maximum(1 - np.abs(level - k), 0) * ndimage.gaussian_filter(array, sigmas, mode="mirror")
        return convert_to_dst_type(out, img, dtype=np.float32)[0]


class Foveated(_Mapped):
    """:class:`Foveate` of each of ``keys``; the other arguments are those of the class.

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
        The idea is from Ciresan et al. 2012 (see :class:`BalancedSampling`), section 2. The formula is this
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
                "<= (window - 1) / 2, and both odd or both even: change output_size or the window's size"
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


class NonUniformSampled(_Mapped):
    """:class:`NonUniformSample` of each of ``keys``; the other arguments are those of the class.

    Example:
        >>> NonUniformSampled("image", output_size=5, fovea_px=1)({"image": np.zeros((1, 11, 11))})["image"].shape
        (1, 5, 5)
    """

    def __init__(
        self, keys: KeysCollection, output_size: Sequence[int] | int, fovea_px: float, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, keys, NonUniformSample(output_size, fovea_px), allow_missing_keys)
