"""What the header of a picture says of its values."""

from __future__ import annotations

from typing import NamedTuple

from .orientation import swaps_axes

__all__ = ["PALETTES", "PictureLayout"]

PALETTES = ("P", "PA")
"""Modes whose values are indices of a palette."""


class PictureLayout(NamedTuple):
    """The size, channels and colours of a picture, as its file holds them.

    Args:
        rows, columns: its size as stored.
        channels: without alpha; 1 where the values are indices of a palette.
        mode: Pillow's name of the kind of colours; of a TIFF "P", "CMYK" or "".
        has_alpha: whether it also says how opaque its pixels are.
        orientation: tag 274 (EXIF or TIFF), 1 where there is none.
        lossy: the name of its compression where that may have changed values, or "".
        lacks_black: whether it is a TIFF that does not say whether black or white is zero.
    """

    rows: int
    columns: int
    channels: int
    mode: str = ""
    has_alpha: bool = False
    orientation: int = 1
    lossy: str = ""
    lacks_black: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows of the upright picture.

        Example:
            >>> PictureLayout(rows=4, columns=6, channels=1, orientation=6).size
            (4, 6)
        """
        return (self.rows, self.columns) if swaps_axes(self.orientation) else (self.columns, self.rows)
