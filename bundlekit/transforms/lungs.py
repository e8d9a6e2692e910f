"""Separates right and left lung in a lung probability map, without windpipe, table and surrounding air."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.segmentation import watershed

from .axes import from_ras, to_ras
from .hounsfield import PADDING_HU

__all__ = ["LEFT", "RIGHT", "SeparateLungsd", "separate_lungs"]

RIGHT, LEFT = 1, 2
_BODY_HU = -500  # tissue lies above, air and lung below
_AIR_HU = -975  # on average, lung lies above, also with emphysema
_FOAM_HU = -925  # on average, foam of a table and emphysema lie below, other lung above
_DISC_MM, _COARSE_MM = 25.0, 3.0  # half the thickness of a table at least, and of no chest; a pixel fine enough for it
_MIN_SHARE = 0.1  # of the largest piece: less than any lung, more than what is seen of a windpipe
_MIN_PIECE_ML = 1.0  # smaller ones are not worth a word
_MIN_AREA_CM2 = 1.0  # of the largest piece's largest axial slice: less than any lung, a newborn's as well
_MIN_SHARE_ACROSS = 0.2  # of a piece beyond the midline, from which on it may be both lungs
_MAX_BRIDGE_MM = 12.0  # half the thickness of what may join two lungs


def _pieces_by_size(mask: np.ndarray) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Connected pieces from the largest down, each as a box and the voxels in it that are the piece's."""
    pieces, count = ndimage.label(mask)
    boxes = ndimage.find_objects(pieces)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    for i in np.argsort(-sizes, kind="stable"):
        yield boxes[i], pieces[boxes[i]] == i + 1


def _body(hu: np.ndarray) -> np.ndarray:
    """The largest connected piece of tissue."""
    body = np.zeros(hu.shape, bool)
    for box, piece in _pieces_by_size(hu > _BODY_HU):
        body[box] = piece
        break
    return body


def _midline_mm(body: np.ndarray, affine: np.ndarray) -> float:
    """Mean x of the body, or of the volume if there is no body."""
    if not body.any():
        body = np.ones_like(body)
    counts = [body.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return float(affine[0] @ [*(np.average(np.arange(len(n)), weights=n) for n in counts), 1])


def _is_right(box: tuple[slice, ...], affine: np.ndarray, midline_mm: float) -> np.ndarray:
    x, y, z = np.ogrid[box]
    return affine[0, 0] * x + affine[0, 1] * y + affine[0, 2] * z + affine[0, 3] > midline_mm


def _open(area: np.ndarray, pixel_mm: np.ndarray) -> np.ndarray:
    """What discs that fit into an area cover: without a table that touches the body. All of it where none fits."""
    step = np.maximum(1, (_COARSE_MM / pixel_mm).astype(int))
    coarse, edges_mm = area[:: step[0], :: step[1]], tuple(pixel_mm * step)
    if coarse.all():
        return area
    core = ndimage.distance_transform_edt(coarse, edges_mm) > _DISC_MM
    if not core.any():
        return area
    opened = ndimage.distance_transform_edt(~core, edges_mm) <= _DISC_MM
    fine = opened.repeat(step[0], axis=0).repeat(step[1], axis=1)
    return area & fine[: area.shape[0], : area.shape[1]]


def _touches(box: tuple[slice, ...], piece: np.ndarray, other: np.ndarray) -> bool:
    around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
    seen = other[around]
    if not seen.any():
        return False
    grown = np.zeros(seen.shape, bool)
    grown[tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))] = piece
    return bool((ndimage.binary_dilation(grown) & seen).any())


def _is_cut_open(box: tuple[slice, ...], piece: np.ndarray, body: np.ndarray, hu: np.ndarray) -> bool:
    """Whether a piece outside the body is lung that the side of a cropped volume, or padding, cuts open."""
    at_side = any(box[axis].start == 0 or box[axis].stop == body.shape[axis] for axis in (0, 1))
    if not (at_side or _touches(box, piece, hu < PADDING_HU)):
        return False
    mean_hu = hu[box][piece].mean()
    if not _AIR_HU < mean_hu <= _FOAM_HU:
        return bool(mean_hu > _FOAM_HU)
    hulls = [convex_hull_image(plane) if plane.any() else plane for plane in np.moveaxis(body[..., box[2]], -1, 0)]
    return bool(np.stack(hulls, axis=-1)[box[:2]][piece].mean() >= 0.5)


def _candidates(
    mask: np.ndarray, body: np.ndarray, hu: np.ndarray, affine: np.ndarray
) -> Iterator[tuple[tuple[slice, ...], np.ndarray, bool]]:
    """The pieces that step 1 of :func:`separate_lungs` leaves, and whether step 2 drops them."""
    edges_mm, voxel_ml = voxel_sizes(affine), abs(np.linalg.det(affine[:3, :3])) / 1000
    inside = body.copy()
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        inside[..., k] = _open(ndimage.binary_fill_holes(body[..., k]), edges_mm[:2])
    least, pixel_cm2 = 0.0, 10 * voxel_ml / edges_mm[2]
    for box, piece in _pieces_by_size(mask):
        size = piece.sum()
        if size < least and size * voxel_ml < _MIN_PIECE_ML:
            return
        if not least and piece.sum(axis=(0, 1)).max() * pixel_cm2 < _MIN_AREA_CM2:
            return
        if inside[box][piece].mean() >= 0.5 or _is_cut_open(box, piece, body, hu):
            yield box, piece, bool(size < least)
            least = least or _MIN_SHARE * size


def _cut(piece: np.ndarray, is_right: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Label both lungs in a piece that holds them; where no peeling divides it, the midline does."""
    depth_mm = ndimage.distance_transform_edt(np.pad(piece, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    step_mm = max(1.0, spacing_mm.min())
    for peeled_mm in np.arange(step_mm, _MAX_BRIDGE_MM, step_mm):
        markers, least = np.zeros(piece.shape, np.uint8), 0.0
        for box, core in _pieces_by_size(depth_mm > peeled_mm):
            if core.sum() < least:
                break
            least = least or _MIN_SHARE * core.sum()
            markers[box][core] = RIGHT if is_right[box][core].mean() > 0.5 else LEFT
        if (markers == RIGHT).any() and (markers == LEFT).any():
            return watershed(-depth_mm, markers, mask=piece)
    return np.where(is_right, RIGHT, LEFT) * piece


def separate_lungs(mask: np.ndarray, hu: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Label the right lung 1 and the left lung 2, and leave out what is no lung.

    1. The body is the largest connected piece of tissue; its inside is what each axial slice of it encloses, as far as
       a disc of 25 mm fits into that, so that a table which touches the body is none of it. Connected pieces of the
       mask that lie outside, as air and table, are dropped, but for lung that a cropped volume's side cuts open, or
       the padding round a scanner's field of view, which is no lung itself: it is denser than air, and where it is as
       light as foam it lies in the body's convex hull.
    2. Pieces of less than a tenth of the largest one are dropped: what the network took of windpipe and bowel. There
       may be only one lung, or none where no axial slice of the largest piece has 1 cm². What a piece encloses, a
       nodule for instance, is part of it.
    3. A piece with a fifth of its volume beyond the midline, the body's mean x, may be both lungs that touch: it is
       peeled, up to 12 mm deep, until it falls into a part on each side, from which both grow back.
    4. Every piece is right or left by the side of the midline where most of it lies, in the patient's coordinates:
       order and direction of the axes do not matter.

    Args:
        mask: where lung was found.
        hu: Hounsfield units of the same voxels, below -1500 for padding.
        affine: 4 x 4 matrix from voxel index to position in mm, x growing to the patient's right.

    Returns:
        - uint8, of the shape of ``mask``: 0, 1 or 2.
        - By "right" and "left" the ml that step 2 dropped on that side, in pieces of 1 ml or more.

    Example:
        >>> from bundlekit.phantoms.thorax import thorax
        >>> phantom = thorax(np.random.default_rng(0), 64, stature=1)
        >>> dark = phantom.image < -500  # lungs, and also windpipe, gas, foam in the table and all air
        >>> labels, left_out_ml = separate_lungs(dark, phantom.image, phantom.affine)
        >>> bool(np.mean(labels != phantom.label) < 0.01), sum(left_out_ml.values()) > 20  # windpipe and gas
        (True, True)
    """
    mask_ras, ras = to_ras(mask.astype(bool) & (hu >= PADDING_HU), affine)
    hu_ras, _ = to_ras(hu, affine)
    body = _body(hu_ras)
    midline_mm, spacing_mm = _midline_mm(body, ras), voxel_sizes(ras)
    labels = np.zeros(mask_ras.shape, np.uint8)
    left_out = {RIGHT: 0, LEFT: 0}
    for box, piece, is_small in _candidates(mask_ras, body, hu_ras, ras):
        is_right = np.broadcast_to(_is_right(box, ras, midline_mm), piece.shape)
        share = is_right[piece].mean()
        side = RIGHT if share > 0.5 else LEFT
        if is_small:
            left_out[side] += piece.sum()
            continue
        piece = ndimage.binary_fill_holes(piece)
        is_both = min(share, 1 - share) >= _MIN_SHARE_ACROSS
        labels[box][piece] = _cut(piece, is_right, spacing_mm)[piece] if is_both else side
    voxel_ml = abs(np.linalg.det(ras[:3, :3])) / 1000
    return from_ras(labels, affine), {
        name: float(left_out[side] * voxel_ml) for name, side in (("right", RIGHT), ("left", LEFT))
    }


class SeparateLungsd(MapTransform):
    """From the probability of lung to 0 background, 1 right and 2 left lung, as :func:`separate_lungs` does it.

    The millilitres that it left out as too small are added as "left_out_ml".

    Args:
        keys: probabilities to change, ``MetaTensor`` whose affine says where the voxels are.
        hu_key: Hounsfield units of the same voxels, below -1500 for padding.
        threshold: probability above which a voxel belongs to a lung.

    Shape:
        - input, and under ``hu_key``: (1, x, y, z). Output: (1, x, y, z), uint8.

    Raises:
        ValueError: where the two do not have that shape.
    """

    def __init__(self, keys: KeysCollection, hu_key: str = "hu", threshold: float = 0.5) -> None:
        super().__init__(keys)
        self.hu_key = hu_key
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        hu = np.asarray(item[self.hu_key])
        for key in self.key_iterator(item):
            probability: MetaTensor = item[key]
            if probability.shape != hu.shape or len(hu) != 1:
                found = f"{tuple(probability.shape)} and {hu.shape}"
                raise ValueError(f"{key!r} and {self.hu_key!r} have shapes {found}; expected (1, x, y, z) for both")
            affine = np.asarray(probability.affine, float)
            mask = np.asarray(probability[0]) > self.threshold
            labels, item["left_out_ml"] = separate_lungs(mask, hu[0], affine)
            item[key] = MetaTensor(torch.as_tensor(labels.copy())[None], meta=probability.meta)
        return item
