"""Pixel weights for the loss: Ronneberger's border map and Ciresan's balanced sampling."""

from __future__ import annotations

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import RandomizableTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage

from .dictionary import DictionaryTransform

__all__ = ["BalancedSampling", "BalancedSamplingd", "BorderWeightMap", "BorderWeightMapd"]


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


class BorderWeightMapd(DictionaryTransform):
    """:class:`BorderWeightMap` of ``keys``, stored under ``output_key``; the other arguments are as in the class.

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
        >>> weight[0, [0, 3]], float(weight.sum())
        (array([1., 1.], dtype=float32), 4.0)
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


class BalancedSamplingd(RandomizableTransform, DictionaryTransform):
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
        DictionaryTransform.__init__(self, keys, output_key, BalancedSampling(num_samples), allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None):
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self
