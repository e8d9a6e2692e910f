"""Label maps that hold no object numbers, or numbers that a compression has changed, are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label

from bundlekit.errors import InputError
from bundlekit.inputs.object_ids import check_object_ids
from bundlekit.inputs.pictures import LabelReader, PictureChecks
from bundlekit.prepare.sources import read_ids

DISCS = np.zeros((40, 60), np.uint8)
for i, (row, column) in enumerate([(8, 8), (8, 30), (8, 50), (30, 8), (30, 30), (30, 50)], start=1):
    DISCS[np.hypot(*np.ogrid[-row : 40 - row, -column : 60 - column]) < 4 + i / 2] = i
LOSSY = {
    "a.jpg": ("JPEG", {}),
    "JPEG by another name.png": ("JPEG", {"format": "JPEG"}),
    "JPEG.tif": ("JPEG", {"compression": "jpeg"}),
    "WebP by another name.png": ("WebP", {"format": "WEBP", "quality": 50}),
    "JPEG 2000 by another name.png": ("JPEG 2000", {"format": "JPEG2000"}),
}
MASK = "expected an id for each object; label its connected components"


def fault(ids: np.ndarray) -> str:
    with pytest.raises(InputError) as caught:
        check_object_ids(ids, "a.png")
    return str(caught.value)


@pytest.mark.parametrize("label_values", [None, list(range(7))], ids=["ids", "classes"])
@pytest.mark.parametrize("name", LOSSY)
def test_lossy_labels_are_refused(name, label_values, tmp_path, capsys):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(DISCS).save(tmp_path / "images/a.png")
    compression, options = LOSSY[name]
    path = tmp_path / "labels" / name
    Image.fromarray(DISCS).save(path, **options)
    (tmp_path / "dataset.json").write_text(f'{{"test": [{{"image": "images/a.png", "label": "labels/{name}"}}]}}')
    checks = PictureChecks(spatial_dims=2, channels=1, label_values=label_values)
    items = checks.section(tmp_path, "test")
    with pytest.raises(SystemExit):
        checks.start(items)
    assert items == []
    line = f"{path}: is a label map compressed by {compression}, which changes its numbers; expected a compression "
    line += "without loss; save it again as PNG, from before it was compressed"
    assert capsys.readouterr().err.splitlines()[0] == f"left out: {line}"
    with pytest.raises(InputError, match="is a label map compressed by"):  # without the checks as well
        LabelReader().get_data((str(path),))
    with pytest.raises(InputError, match="is a label map compressed by"):
        read_ids(path, "nucleus")


@pytest.mark.parametrize("options", [{"format": "WEBP", "lossless": True}, {}], ids=["WebP", "PNG"])
def test_labels_without_loss_are_read(options, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([DISCS] * 3) if options else DISCS).save(path, **options)
    values, _ = LabelReader().get_data((str(path),))
    assert np.array_equal(values[..., 0].T, DISCS)


@pytest.mark.parametrize("stored", [DISCS, ~DISCS, DISCS.astype(np.uint16)], ids=["as it is", "inverted", "16 bits"])
def test_labels_in_which_white_is_zero_are_left_out(stored, tmp_path, capsys):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(DISCS).save(tmp_path / "images/a.png")
    path = tmp_path / "labels/a.tif"
    tifffile.imwrite(path, stored, photometric="miniswhite")
    (tmp_path / "dataset.json").write_text('{"test": [{"image": "images/a.png", "label": "labels/a.tif"}]}')
    checks = PictureChecks(spatial_dims=2, channels=1)
    with pytest.raises(SystemExit):
        checks.start(checks.section(tmp_path, "test"))
    line = f"{path}: is a label map that says that white is zero, so that its numbers may be inverted or not; "
    line += "expected a TIFF in which black is zero; save the numbers again as PNG"
    assert capsys.readouterr().err.splitlines()[0] == f"left out: {line}"
    with pytest.raises(InputError) as caught:
        read_ids(path, "nucleus")
    assert str(caught.value) == line


def test_masks_and_classes_are_no_ids():
    is_object = (DISCS > 0).astype(int)
    assert fault(255 * is_object) == f"a.png: holds only the id 255 (a binary mask); {MASK}"
    assert fault(255 * (DISCS == 3)) == f"a.png: holds only the id 255 (a binary mask); {MASK}"
    assert fault(is_object) == f"a.png: holds only the id 1, in 6 separate pieces (a binary mask); {MASK}"
    classes = is_object + (DISCS > 3)
    assert fault(classes) == f"a.png: holds 2 ids, in 6 separate pieces (classes); {MASK}"


def test_an_anti_aliased_mask_is_no_map_of_ids():
    soft = Image.fromarray(255 * (DISCS > 0).astype(np.uint8)).resize((90, 60), Image.Resampling.BICUBIC)
    assert "separate pieces (classes)" in fault(np.asarray(soft).astype(int))


def test_ids_are_accepted_whatever_their_objects_look_like():
    assert check_object_ids(DISCS, "a.png") == []
    assert check_object_ids(np.zeros((4, 4), int), "a.png") == []
    assert check_object_ids((DISCS == 2).astype(int), "a.png") == []
    assert check_object_ids(np.where(DISCS, DISCS.astype(int) * 1000, 0), "a.png") == []
    touching = label(np.add.outer(np.arange(40) // 7, np.arange(60) // 9)) + 1
    assert check_object_ids(touching, "a.png") == []
    speck = DISCS.copy()
    speck[20, 20] = 6  # one pixel next to 150
    assert check_object_ids(speck, "a.png") == []
    corner = np.zeros((6, 6), int)
    corner[:3, :3] = corner[3:, 3:] = 1  # one piece, which pixels at a corner join
    assert check_object_ids(corner, "a.png") == []


def test_an_object_that_another_one_cuts_is_noted():
    cut = DISCS.copy()
    cut[29:31, 20:45] = 9
    [note] = check_object_ids(cut, "a.png")
    assert str(note) == (
        "a.png: holds 1 of 7 ids in several pieces (at most 2); expected an id for each object; keep it if each of "
        "these is one object that is cut by others; otherwise label its connected components"
    )


@pytest.mark.parametrize("ids", [255 * (DISCS > 0), DISCS > 0], ids=["0/255", "0/1"])
def test_the_checks_of_a_run_and_prepare_data_agree(ids, tmp_path, capsys):
    for folder, array in (("images", DISCS), ("labels", ids)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", array.astype(np.uint8))
    (tmp_path / "dataset.json").write_text('{"test": [{"image": "images/a.tif", "label": "labels/a.tif"}]}')
    assert PictureChecks(spatial_dims=2, channels=1, label_values=[0, 1, 255]).section(tmp_path, "test")
    checks = PictureChecks(spatial_dims=2, channels=1)
    with pytest.raises(SystemExit):
        checks.start(checks.section(tmp_path, "test"))
    path = Path(tmp_path, "labels/a.tif")
    with pytest.raises(InputError) as caught:
        read_ids(path, "object")
    assert capsys.readouterr().err.splitlines()[0] == f"left out: {caught.value}"
    assert str(caught.value) == fault(ids.astype(int)).replace("a.png", str(path))


def test_a_mask_of_one_clump_and_many_small_objects_is_no_map_of_ids():
    mask = np.zeros((300, 300), int)
    mask[::6, ::6] = 1
    mask[100:200, 100:200] = 1  # each other piece is 0.01 % of it
    assert fault(mask).startswith("a.png: holds only the id 1, in 2212 separate pieces (a binary mask)")
    few = np.zeros((300, 300), int)
    few[100:200, 100:200] = 1
    few[5, 5:50:5] = 1  # nine slips of the pen
    assert check_object_ids(few, "a.png") == []
    classes = np.where(np.arange(300) < 150, mask, 2 * mask)
    assert "separate pieces (classes)" in fault(classes)
