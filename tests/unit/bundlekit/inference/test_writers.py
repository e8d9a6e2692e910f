"""Files that appear when they are whole."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage
from PIL import Image

from bundlekit.inference.writers import PictureWriter, VolumeWriter


def save(folder: Path, shape: tuple[int, ...], writer: type, ending: str) -> MetaTensor:
    image = MetaTensor(torch.ones(1, *shape), meta={"filename_or_obj": f"x.y{ending}"})
    saver = SaveImage(
        folder, output_ext=ending, writer=writer, separate_folder=False, resample=False, print_log=False,
        savepath_in_metadict=True, output_dtype=np.uint8,
    )  # fmt: skip
    return saver(image)


@pytest.mark.parametrize(
    ("shape", "writer", "ending", "read"),
    [
        ((6, 4), PictureWriter, ".png", lambda path: np.asarray(Image.open(path)).T),
        ((6, 4, 1), VolumeWriter, ".nii.gz", lambda path: np.asarray(nib.load(path).dataobj)),
        ((1, 4, 1), VolumeWriter, ".nii.gz", lambda path: np.asarray(nib.load(path).dataobj)),
    ],
)
def test_one_file_with_the_image(tmp_path, shape, writer, ending, read):
    saved = save(tmp_path, shape, writer, ending)
    [path] = tmp_path.iterdir()
    assert str(path) == saved.meta["saved_to"]
    np.testing.assert_array_equal(read(path), np.ones(shape))


@pytest.mark.parametrize(
    ("parent", "name", "ending"), [(PictureWriter, "PIL", ".png"), (VolumeWriter, "Nibabel", ".nii.gz")]
)
def test_an_old_file_stays_where_writing_stops_halfway(tmp_path, monkeypatch, parent, name, ending):
    shape = (6, 4) if ending == ".png" else (6, 4, 2)
    path = Path(save(tmp_path, shape, parent, ending).meta["saved_to"])
    before = path.read_bytes()
    [monai_writer] = [base for base in parent.__mro__ if base.__name__ == f"{name}Writer"]

    def write_half(self, filename, *args, **kwargs):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monai_writer, "write", write_half)
    with pytest.raises(Exception, match=r"No space left|output writers"):
        save(tmp_path, shape, parent, ending)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before
