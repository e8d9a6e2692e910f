"""Distinguishes maps of object ids from masks and from maps of classes."""

from __future__ import annotations

import os

import numpy as np
from skimage.measure import label

from ..errors import InputError, InputNote

__all__ = ["check_object_ids"]

_OF_A_MASK = 255
_SPECK = 0.01  # of the largest piece of its number; smaller ones are slips of the pen
_MOST_SPECKS = 10  # of a number; more of them are objects next to a clump
_MOST_PIECES = 2  # for each number, on average: one object may be cut by another
_REMEDY = "label its connected components"


def _count_pieces(ids: np.ndarray) -> np.ndarray:
    """In how many pieces, a few specks left out, each number lies; pixels that touch at a corner belong together."""
    pieces = label(ids, background=0, connectivity=ids.ndim)
    areas = np.bincount(pieces.ravel())[1:]
    number_of = np.zeros(len(areas) + 1, ids.dtype)
    number_of[pieces.ravel()] = ids.ravel()
    numbers, indices = np.unique(number_of[1:], return_inverse=True)
    largest = np.zeros(len(numbers), int)
    np.maximum.at(largest, indices, areas)
    all_pieces = np.bincount(indices, minlength=len(numbers))
    without_specks = np.bincount(indices[areas >= _SPECK * largest[indices]], minlength=len(numbers))
    return np.where(all_pieces - without_specks > _MOST_SPECKS, all_pieces, without_specks)


def check_object_ids(ids: np.ndarray, path: str | os.PathLike, thing: str = "object") -> list[InputNote]:
    """Make sure that the numbers of a label map may be those of objects.

    A mask holds 255 and nothing else, or one number for all objects; a map of classes holds a few, each for many. An
    object may be in two pieces, where another one cuts it, or have up to ten specks of less than 1 % of its area.
    Hence a map is no map of objects where its numbers lie in more than two pieces each, on average.

    Args:
        ids: integers of at least 0, without channels.
        path: its file.
        thing: what has a number, in the singular.

    Returns:
        A note where a number lies in several pieces.

    Raises:
        InputError: where these are no numbers of objects.

    Example:
        >>> check_object_ids(np.array([[1, 0, 2, 0, 3]]), "label.png")
        []
        >>> check_object_ids(np.array([[1, 0, 1, 0, 1]]), "label.png")
        Traceback (most recent call last):
        bundlekit.errors.InputError: label.png: holds only the id 1, in 3 separate pieces (a binary mask); expected an \
id for each object; label its connected components
    """
    highest = int(ids.max(initial=0))
    if highest == 0:
        return []
    expected, pieces = f"an id for each {thing}", _count_pieces(ids)
    is_mask = len(pieces) == 1
    if is_mask and highest == _OF_A_MASK:
        raise InputError(path, f"holds only the id {_OF_A_MASK} (a binary mask)", expected, _REMEDY)
    if pieces.sum() > _MOST_PIECES * len(pieces):
        what, kind = (f"only the id {highest}", "a binary mask") if is_mask else (f"{len(pieces)} ids", "classes")
        raise InputError(path, f"holds {what}, in {pieces.sum()} separate pieces ({kind})", expected, _REMEDY)
    several = np.count_nonzero(pieces > 1)
    if several:
        found = f"holds {several} of {len(pieces)} ids in several pieces (at most {pieces.max()})"
        remedy = f"keep it if each of these is one {thing} that is cut by others; otherwise {_REMEDY}"
        return [InputNote(path, found, f"an id for each {thing}", remedy)]
    return []
