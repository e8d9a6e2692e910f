"""All files of an input: whichever of them changes, appears or goes, the input is another one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundlekit.inference.record import RunRecord
from bundlekit.inputs.parts import find_parts, find_state, hash_item

HEADERS = {
    "a.mhd": ("NDims = 3\nElementDataFile = v.raw\n", ["v.raw"]),
    "b.mhd": ("NDims = 3\nElementDataFile = LIST\nv.raw\nw.raw\n", ["v.raw", "w.raw"]),
    "c.mhd": ("NDims = 3\nElementDataFile = s%02d.raw 1 5 2\n", ["s01.raw", "s03.raw", "s05.raw"]),
    "a.nhdr": ("NRRD0004\ntype: short\ndata file: ./v.raw\n", ["v.raw"]),
    "b.nhdr": ("NRRD0004\nDatafile: LIST\nv.raw\nw.raw\n", ["v.raw", "w.raw"]),
    "c.nhdr": ("NRRD0004\ndata file: s%02d.raw 1 5 2\nencoding: raw\n", ["s01.raw", "s03.raw", "s05.raw"]),
    "two words.mhd": ("ElementDataFile = two words.raw\n", ["two words.raw"]),
    "a.mha": ("NDims = 3\nElementDataFile = LOCAL\nElementDataFile = v.raw\n", []),
    "a.nrrd": ("NRRD0004\ntype: short\n\ndata file: v.raw\n", []),  # values behind the empty line
    "a.hdr": ("header", ["a.img"]),
    "b.hdr": ("header", ["b.img.gz"]),
    "a.img": ("values", ["a.hdr"]),
    "a.nii.gz": ("values", []),
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_files_next_to_a_header(tmp_path, name):
    text, others = HEADERS[name]
    for other in [*others, "v.raw", "x.raw"]:
        (tmp_path / other).write_bytes(b"1")
    (tmp_path / name).write_text(text)
    assert {part.resolve() for part in find_parts(tmp_path / name)} == {tmp_path / part for part in [name, *others]}


def save_slices(folder: Path) -> Path:
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.dcm").write_bytes(b"slice")
    return folder


def change(folder: Path) -> None:
    (folder / "1.dcm").write_bytes(b"other")
    os.utime(folder / "1.dcm", ns=(1, 1))


def add(folder: Path) -> None:
    (folder / "3.dcm").write_bytes(b"slice")


def remove(folder: Path) -> None:
    (folder / "2.dcm").unlink()


def rename(folder: Path) -> None:
    (folder / "2.dcm").rename(folder / "3.dcm")


@pytest.mark.parametrize("spoil", [change, add, remove, rename])
def test_a_folder_of_slices_is_unfinished_where_one_changed(tmp_path, spoil):
    folder = save_slices(tmp_path / "s")
    RunRecord(tmp_path / "out").mark_finished(str(folder), [])
    assert RunRecord(tmp_path / "out").is_finished(str(folder))
    (folder / ".hidden").touch()  # as of a program that looks through folders
    assert RunRecord(tmp_path / "out").is_finished(str(folder))
    spoil(folder)
    assert not RunRecord(tmp_path / "out").is_finished(str(folder))


@pytest.mark.parametrize("name", ["a.mhd", "b.nhdr", "c.mhd", "a.hdr"])
def test_a_header_is_unfinished_where_its_values_changed(tmp_path, name):
    text, others = HEADERS[name]
    for other in others:
        (tmp_path / other).write_bytes(b"1")
    (tmp_path / name).write_text(text)
    image = str(tmp_path / name)
    for other in others:
        RunRecord(tmp_path / "out").mark_finished(image, [])
        assert RunRecord(tmp_path / "out").is_finished(image)
        os.utime(tmp_path / other, ns=(1, 1))
        assert not RunRecord(tmp_path / "out").is_finished(image)


def test_a_cache_does_not_keep_what_a_file_held_before(tmp_path):
    for name in ("a_t1.nii", "a_t2.nii", "label.nii"):
        (tmp_path / name).write_bytes(b"1")
    item = {"image": [str(tmp_path / "a_t1.nii"), str(tmp_path / "a_t2.nii")], "label": str(tmp_path / "label.nii")}
    hashes = [hash_item(item)]
    for name in ("a_t2.nii", "label.nii"):
        assert hash_item(dict(reversed(item.items()))) == hashes[-1]
        (tmp_path / name).write_bytes(b"22")
        hashes.append(hash_item(item))
    assert len(set(hashes)) == 3


def test_what_is_not_there_has_no_state(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_state(tmp_path / "a.png")
