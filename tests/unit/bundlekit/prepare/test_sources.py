"""Tables and maps of ids: what is in them comes back, and what cannot be used is named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bundlekit.errors import InputError
from bundlekit.prepare.sources import read_ids, read_split, read_table


def test_columns_in_any_order_with_others_a_byte_order_mark_and_spaces(tmp_path):
    (tmp_path / "split.csv").write_text("\ufeffgroup, split, id\n1, val, b\n\n2, train, ä\n", encoding="utf-8")
    assert read_split(tmp_path / "split.csv") == {"b": "val", "ä": "train"}


@pytest.mark.parametrize(
    "content, found",
    [
        ("", "has no column id and no column split (columns there: none); expected the columns id and split; begin it"),
        ("name,split\na,train\n", "has no column id (columns there: name, split)"),
        ("id,split\na,train\nb,dev\n", "image 'b' has the split 'dev'; expected train, val or test; give each image"),
        ("id,split\na\n", "image 'a' has the split ''"),
        ("id,split\na,train\na,test\n", "image 'a' is listed twice"),
        ("id,split\n", "lists no image"),
        (b"\xff\xfe\x00", "cannot be read ('utf-8' codec"),
        (None, "cannot be read ([Errno 2] No such file"),
    ],
)
def test_wrong_tables_of_splits(tmp_path, content, found):
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        read_split(path)
    assert str(error.value).startswith(f"{path}: {found}")


def test_columns_that_a_table_must_have(tmp_path):
    (tmp_path / "grades.csv").write_text("name;grade\ntrain_1;benign\n")
    with pytest.raises(InputError, match=r"has no column name and no column grade \(columns there: name;grade\)"):
        read_table(tmp_path / "grades.csv", ("name", "grade"))


@pytest.mark.parametrize("dtype, largest", [(np.uint8, 254), (np.uint16, 65535), (np.int32, 65535)])
def test_ids_come_back(tmp_path, dtype, largest):
    ids = np.array([[0, 3, 3], [largest, 0, 7]])
    Image.fromarray(ids.astype(dtype)).save(tmp_path / "ids.tif")
    found = read_ids(tmp_path / "ids.tif", "gland")
    assert found.dtype == np.uint16 and np.array_equal(found, ids)


def test_ids_of_a_palette_are_its_indices(tmp_path):
    ids = np.array([[0, 3, 3], [200, 0, 7]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tobytes())
    image.save(tmp_path / "ids.png")
    assert np.array_equal(read_ids(tmp_path / "ids.png", "gland"), ids)


@pytest.mark.parametrize(
    "array, found",
    [
        (np.zeros((4, 4, 3), np.uint8), "has pixels of the type 'RGB'; expected one integer per pixel"),
        (np.full((4, 4), 65536, np.int32), "holds ids from 65536 to 65536; expected 0 to 65535"),
        (np.full((4, 4), -1, np.int32), "holds ids from -1 to -1"),
        (np.eye(4, dtype=np.uint8) * 255, "holds only the id 255 (a binary mask); expected an id for each gland"),
        (np.full((4, 4), 255, np.uint8), "holds only the id 255"),
    ],
)
def test_maps_that_hold_no_ids(tmp_path, array, found):
    Image.fromarray(array).save(tmp_path / "ids.tif")
    with pytest.raises(InputError) as error:
        read_ids(tmp_path / "ids.tif", "gland")
    assert str(error.value).startswith(f"{tmp_path}/ids.tif: {found}")
