"""Checks that a position given with an image lies inside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .grids import Grid

__all__ = ["check_centre"]


def _format_point(values: np.ndarray) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def check_centre(item: dict[str, Any], centre: Any, grid: Grid | None) -> list[InputError]:
    """What is wrong with the position of an object; nothing where it lies in its image.

    Args:
        item: the entry of a data list, for the message.
        centre: as many numbers as the image has axes: pixels of a plane, as (x, y) from the centre of the upper left
            pixel, or millimetres of a volume.
        grid: grid of the image; None if it could not be read, so that only the form is checked.

    Example:
        >>> check_centre({"image": "a.png"}, [3, 4.5], Grid((10, 10)))
        []
        >>> print(*check_centre({"image": "a.png"}, [12, 4.5], Grid((10, 8))))
        a.png: its centre (12, 4.5) lies outside the image of 10 x 8; expected (0, 0) to (9, 7); correct it in \
dataset.json or in the table of centres
    """
    name = item.get("image", f"entry {item}")
    remedy = "correct it in dataset.json or in the table of centres"
    try:
        point = np.array(centre, float)
    except (TypeError, ValueError):
        point = np.array(np.nan)
    if point.ndim != 1 or not np.isfinite(point).all() or (grid is not None and len(point) != len(grid.shape)):
        wanted = '"centre": a number for each axis of the image'
        return [InputError(name, f"has the centre {centre!r}", wanted, remedy)]
    if grid is None:
        return []
    voxel = point if grid.affine is None else (np.linalg.inv(grid.affine) @ [*point, 1])[:-1]
    last = np.array(grid.shape) - 1
    if ((voxel >= -0.5) & (voxel <= last + 0.5)).all():
        return []
    at = "" if grid.affine is None else f", voxel {_format_point(voxel.round(1))},"
    found = f"its centre {_format_point(point)}{at} lies outside the image of {grid}"
    unit = "" if grid.affine is None else "voxels "
    return [InputError(name, found, f"{unit}{_format_point(0 * last)} to {_format_point(last)}", remedy)]
