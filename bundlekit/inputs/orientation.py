"""Rejects images whose EXIF orientation is not upright."""

from __future__ import annotations

import os

from ..errors import InputError

__all__ = ["ORIENTATION", "require_upright"]

ORIENTATION = 274
"""Number of the tag in TIFF and in EXIF."""


def require_upright(path: str | os.PathLike, orientation: int) -> None:
    """Refuse an image whose file says that it is to be shown turned.

    Args:
        path: the file.
        orientation: what its tag 274 (EXIF or TIFF) says, 1 where there is none.

    Raises:
        InputError: if that is one of 2 to 8.

    Example:
        >>> require_upright("a.jpg", 1)
    """
    if orientation not in (0, 1):  # 0 is none of the eight, and taken for "not known"
        found = (
            f"has a tag that rotates or mirrors it (EXIF or TIFF orientation {orientation}), which programs may ignore"
        )
        remedy = "rotate its pixels, for example by mogrify -auto-orient (ImageMagick)"
        raise InputError(path, found, "an upright image (orientation 1)", remedy)
