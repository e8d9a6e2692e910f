"""Lists, folders and single files; expected paths and lines are written out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from bundlekit.errors import InputError
from bundlekit.inputs.datalists import find_images, find_output_collisions, read_section, require_inputs_outside

PREPARE = "make it with the bundle's scripts/prepare_data.py, or pass another folder with --dataset_dir"


def write(folder, content) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "dataset.json").write_text(text, encoding="utf-8")


def names(items) -> list[str]:
    return [os.path.basename(item["image"]) for item in items]


def test_paths_are_relative_to_the_list_or_absolute(tmp_path):
    inside = {"image": "images/ä b.png", "label": "labels/ä b.png", "fold": 1}
    outside = {"image": "../other/c.png", "label": "/data/c.png"}
    write(tmp_path, {"training": [inside, outside]})
    assert read_section(tmp_path, "training") == [
        {"image": f"{tmp_path}/images/ä b.png", "label": f"{tmp_path}/labels/ä b.png"},
        {"image": f"{tmp_path.parent}/other/c.png", "label": "/data/c.png"},
    ]


def test_several_files_of_an_image_and_a_test_list_of_paths(tmp_path):
    write(tmp_path, {"training": [{"image": ["t1.nii", "t2.nii"], "label": "l.nii"}], "test": ["a.nii"]})
    [item] = read_section(tmp_path, "training")
    assert item["image"] == [f"{tmp_path}/t1.nii", f"{tmp_path}/t2.nii"]
    assert read_section(tmp_path, "test") == [{"image": f"{tmp_path}/a.nii"}]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "cannot be opened (No such file or directory); expected a file"),
        ("", "is empty (0 bytes); expected a file with content"),
        (
            '{"training": [',
            "is not valid JSON (Expecting value: line 1 column 15 (char 14)); expected a Decathlon data",
        ),
        ([1], "holds a JSON list; expected an object with named lists"),
        ({"test": [], "name": "x"}, "has no list 'training' (its lists: 'test'); expected a list 'training' of"),
        ({"training": []}, "its list 'training' is empty; expected a list 'training' of"),
        ({"training": "a.png"}, "its entry 'training' is not a list; expected"),
        ({"training": ["a.png"]}, "its list 'training' has entries that are not JSON objects; expected"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, content, found):
    if content is not None:
        write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_section(tmp_path, "training")
    assert str(caught.value).startswith(f"{tmp_path}/dataset.json: {found}")
    assert str(caught.value).endswith(f"; {PREPARE}")


@pytest.mark.parametrize("dataset_dir", ["/nowhere", 2012])
def test_no_folder(dataset_dir):
    with pytest.raises(InputError) as caught:
        read_section(dataset_dir, "training")
    expected = "expected a folder with images/, labels/ and dataset.json"
    assert str(caught.value) == f"{dataset_dir}: is not a folder; {expected}; {PREPARE}"


def test_a_plain_folder(tmp_path):
    for name in ("b.TIF", "a 1.png", "c.nii.gz", "d.hdr", "d.img", ".e.png", "readme.md", "f.png.txt", "é.JPEG"):
        (tmp_path / name).touch()
    assert names(find_images(tmp_path)) == ["a 1.png", "b.TIF", "c.nii.gz", "d.hdr", "é.JPEG"]


def test_one_file(tmp_path):
    (tmp_path / "a.png").touch()
    assert find_images(tmp_path / "a.png") == [{"image": f"{tmp_path}/a.png"}]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"training": [{"image": "images/a.png"}], "test": [{"image": "images/b.png", "label": "l"}]}, ["b.png"]),
        ({"training": [{"image": "images/a.png"}], "test": []}, ["a.png", "b.png"]),
        ({"training": [{"image": "images/a.png"}]}, ["a.png", "b.png"]),
    ],
)
def test_the_projects_layout(tmp_path, lists, expected):
    (tmp_path / "images").mkdir()
    for name in ("images/a.png", "images/b.png", "thumbnail.png"):
        (tmp_path / name).touch()
    write(tmp_path, lists)
    items = find_images(tmp_path)
    assert names(items) == expected
    assert all(set(item) == {"image"} for item in items)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "is empty"),
        (["a.txt"], "holds no image, only a.txt"),
        (["a.raw", "b.pdf", "c", "d.doc"], "holds no image, only a.raw, b.pdf, c, ..."),
    ],
)
def test_a_folder_without_images(tmp_path, files, found):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        find_images(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}: {found}; expected images (.png .jpg ")
    assert line.endswith("; pass the folder that holds the images with --dataset_dir")


def test_inputs_that_are_not_there(tmp_path):
    with pytest.raises(
        InputError, match=f"^{tmp_path}/gone: does not exist; expected an image, a folder of images, or "
    ):
        find_images(tmp_path / "gone")
    write(tmp_path, {})
    with pytest.raises(InputError, match=rf"^{tmp_path}/images: cannot be opened \(No such file or directory\); "):
        find_images(tmp_path)


def test_a_broken_list_is_not_taken_for_a_plain_folder(tmp_path):
    (tmp_path / "a.png").touch()
    write(tmp_path, "{")
    with pytest.raises(InputError, match=f"^{tmp_path}/dataset.json: is not valid JSON"):
        find_images(tmp_path)


def test_outputs_that_would_replace_each_other():
    paths = ["x/a.png", "x/a.tif", "y/a.nii.gz", "x/b.1.png", "x/b.2.png", ["x/c.nii", "x/d.nii"], "x/c.png"]
    errors = find_output_collisions([{"image": path} for path in paths])
    assert [str(error).split(";")[0] for error in errors] == [
        "x/a.tif: has the same output name as x/a.png",
        "y/a.nii.gz: has the same output name as x/a.png",
        "x/c.png: has the same output name as x/c.nii",
    ]


@pytest.mark.parametrize(
    "image", ["out/a.png", "./out/../out/a.png", "link/a.png", Path("out/a.png"), ["in/t1.nii", "out/a.png"]]
)
@pytest.mark.parametrize("output_dir", ["out", "link", "in/../out"])
def test_images_in_the_folder_of_the_outputs(tmp_path, monkeypatch, image, output_dir):
    monkeypatch.chdir(tmp_path)
    for name in ("in", "out"):
        os.mkdir(name)
    os.symlink("out", "link")
    with pytest.raises(InputError) as caught:
        require_inputs_outside(output_dir, [{"image": "in/b.png"}, {"image": image}])
    path = image[1] if isinstance(image, list) else image
    assert str(caught.value) == (
        f"{output_dir}: is both input and output folder (it holds {path}); expected another folder; "
        "pass another --output_dir"
    )


def test_the_working_folder_as_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output_dir in (".", "", tmp_path):
        with pytest.raises(InputError, match=r"is both input and output folder \(it holds a.png\)"):
            require_inputs_outside(output_dir, [{"image": "a.png"}, {"image": "b.png"}])


def test_entries_that_no_output_replaces(tmp_path):
    items = [{"image": f"{tmp_path}/{name}"} for name in ("below/a.png", "../a.png", "gone/../../a.png", "nul\0/a.png")]
    scored = {"image": f"{tmp_path}/a.png", "label": f"{tmp_path}/b.png"}
    tensors = [{"image": torch.zeros(2, 3)}, {"image": [torch.zeros(3)]}, {"image": None}, {"label": "a"}]
    require_inputs_outside(tmp_path, [*items, scored, *tensors, "item", torch.zeros(2)])
