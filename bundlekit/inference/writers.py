"""Writers for MONAI's ``SaveImaged`` that never leave a half-written file, even if the process is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monai.config import NdarrayOrTensor
from monai.data import ImageWriter, NibabelWriter, PILWriter

__all__ = ["PictureWriter", "VolumeWriter"]


class _WholeFiles(ImageWriter):
    """Write to a temporary file in the same folder, which the next try overwrites, and rename it at the end."""

    def write(self, filename: str | os.PathLike, verbose: bool = True, **kwargs: Any) -> None:
        part = Path(filename).with_name(f".part.{Path(filename).name}")
        try:
            super().write(str(part), verbose, **kwargs)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, filename)
        finally:
            part.unlink(missing_ok=True)


class PictureWriter(_WholeFiles, PILWriter):
    """MONAI's writer of pictures."""


class VolumeWriter(_WholeFiles, NibabelWriter):
    """MONAI's writer of NIfTI files for one channel, whose volumes keep axes of length 1 at their end."""

    def set_data_array(
        self, data_array: NdarrayOrTensor, channel_dim: int | None = 0, squeeze_end_dims: bool = True, **kwargs: Any
    ) -> None:
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        self.data_obj = self.data_obj[..., 0]
