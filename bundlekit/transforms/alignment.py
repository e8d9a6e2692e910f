"""Shifts an image by a fraction of a pixel onto its labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage

from .dictionary import DictionaryTransform

__all__ = ["SubpixelShift", "SubpixelShiftd"]


class SubpixelShift(Transform):
    """Moves an image by a fraction of a pixel on the same grid: out(x) = image(x - shift).

    For labels with the same small offset from the image in all images of a data set. An augmentation that turns and
    mirrors images makes such an offset unlearnable; moving the images onto their labels, in training and in
    inference, removes it. Cubic splines, the image mirrored at its border. MONAI's ``Affined`` would also move the
    image's affine, and with it the result.

    Args:
        shift_px: shift along each spatial axis of the array in pixels; positive values move towards higher indices.

    Shape:
        (channels, *spatial) to the same, float32.

    Raises:
        ValueError: when a shift is not finite, and when their number differs from the number of spatial axes.

    Example:
        >>> SubpixelShift([0, 1.0])(np.arange(8.0).reshape(1, 2, 4))[0, :, 1:].round(6)
        array([[0., 1., 2.],
               [4., 5., 6.]], dtype=float32)
    """

    def __init__(self, shift_px: Sequence[float]) -> None:
        self.shift_px = tuple(shift_px)
        if not np.isfinite(self.shift_px).all():  # SciPy's splines end the process
            raise ValueError(f"shift_px is {self.shift_px}; expected finite numbers")

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        array = convert_to_numpy(img, dtype=np.float64)
        if array.ndim != len(self.shift_px) + 1:
            raise ValueError(
                f"shift_px is {self.shift_px} and the image {array.shape}; expected a shift for each spatial axis"
            )
        moved = ndimage.shift(array, (0, *self.shift_px), order=3, mode="mirror")
        return convert_to_dst_type(moved, img, dtype=np.float32)[0]


class SubpixelShiftd(DictionaryTransform):
    """:class:`SubpixelShift` of each of ``keys``.

    Example:
        >>> SubpixelShiftd("image", [0.5, 0])({"image": np.ones((1, 4, 4))})["image"].round(6).min()
        np.float32(1.0)
    """

    def __init__(self, keys: KeysCollection, shift_px: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, keys, SubpixelShift(shift_px), allow_missing_keys)
