"""Images and labels that were damaged on purpose; counts and places follow from how each was made."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundlekit.errors import InputError
from bundlekit.inputs.entries import check_item
from bundlekit.inputs.images import check_image, check_label
from bundlekit.inputs.values import check_image_values, note_nothing

PREPARE = "write the labels with the bundle's scripts/prepare_data.py"


def save(path: Path, array: np.ndarray, mode: str | None = None) -> str:
    """Write (width, height[, colour]) with Pillow, or (x, y, z) as a volume."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    elif path.suffix in (".nrrd", ".mha"):
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(array.T)), str(path))
    else:
        image = Image.fromarray(np.ascontiguousarray(array.swapaxes(0, 1)))
        (image.convert(mode) if mode else image).save(path)
    return str(path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def fault(check, path, *args) -> str:
    """The check's line without the file's name, which must stand first."""
    with pytest.raises(InputError) as caught:
        check(path, *args)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line[len(f"{path}: ") :]


@pytest.mark.parametrize("damage", ["truncated", "text"])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif", ".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_file_that_no_reader_can_read(tmp_path, ending, damage):
    dims = 2 if ending in (".png", ".jpg", ".bmp", ".tif") else 3
    path = Path(save(tmp_path / f"a{ending}", noise(*(30, 20, 10)[:dims])))
    assert check_image(str(path), dims, 1).shape == (30, 20, 10)[:dims]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4] if damage == "truncated" else b"<html>404: not found</html>\n" * 20)
    line = fault(check_image, str(path), dims, 1)
    assert line.startswith("cannot be read as an image (truncated or not an image; the reader says: ")
    assert line.endswith("; expected a complete image file; copy or export it again, or remove it")
    assert len(line) < 300


@pytest.mark.parametrize(
    ("name", "array", "mode", "channels"),
    [
        ("grey.png", noise(6, 4), None, 1),
        ("bilevel.png", noise(6, 4), "1", 1),
        ("deep.png", noise(6, 4).astype(np.uint16) * 200, None, 1),
        ("float.tif", noise(6, 4).astype(np.float32), None, 1),
        ("one of two.jpg", noise(6, 4, 3), None, [1, 3]),
        ("ÜPPER é.PNG", noise(6, 4, 3), None, 3),
        ("alpha.png", noise(6, 4, 4), None, [3, 4]),
    ],
)
def test_images_that_are_right(tmp_path, name, array, mode, channels):
    assert check_image(save(tmp_path / name, array, mode), 2, channels).shape == (6, 4)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("a.png", (1, 1)), ("a.png", (1, 4)), ("a.png", (6, 1)), ("a.tif", (6, 1)), ("a.nii", (5, 4, 1))],
)
def test_a_side_of_one_pixel(tmp_path, name, shape):
    path = save(tmp_path / name, np.zeros(shape, np.uint8))
    size = " x ".join(map(str, shape))
    line = f"is {size}; expected at least 2 pixels a side; crop a larger region, or remove it"
    assert fault(check_image, path, len(shape), 1) == line
    assert fault(check_label, path, len(shape), [0]) == line


def test_the_smallest_image_and_label(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    grid, has_objects = check_label(path, 2, [0])
    assert check_image(path, 2, 1).shape == grid.shape == (2, 2) and not has_objects


def test_volumes_that_are_right(tmp_path):
    assert check_image(save(tmp_path / "A.NII", noise(5, 4, 3)), 3, 1).shape == (5, 4, 3)
    assert check_image(save(tmp_path / "one time.nii.gz", noise(5, 4, 3, 1)), 3, 1).shape == (5, 4, 3)
    several = [save(tmp_path / f"{name}.nii.gz", noise(5, 4, 3)) for name in ("t1", "t2")]
    assert check_image(several, 3, 2).shape == (5, 4, 3)


@pytest.mark.parametrize(
    ("mode", "channels", "line"),
    [
        ("RGB", 1, "number of channels is 3 (colours); expected 1; convert it, or use the bundle made for such images"),
        ("L", 3, "number of channels is 1; expected 3; convert it, or use the bundle made for such images"),
        ("RGBA", 3, "number of channels is 4 (colours with alpha); expected 3; save it without alpha"),
        ("LA", [1, 3], "number of channels is 2 (grey with alpha); expected 1 or 3; save it without alpha"),
        ("P", 1, "is a palette image: its pixels are indices of colours; expected intensities; save it as grey or RGB"),
    ],
)
def test_wrong_channels(tmp_path, mode, channels, line):
    assert fault(check_image, save(tmp_path / "a.png", noise(6, 4, 3), mode), 2, channels) == line


def test_wrong_dimensions(tmp_path):
    flat, deep = save(tmp_path / "a.png", noise(6, 4)), save(tmp_path / "a.nii.gz", noise(6, 4, 1))
    remedy = "expected 3 dimensions; join the slices to one volume"
    assert fault(check_image, flat, 3, 1) == f"has 2 spatial dimensions (6 x 4); {remedy}"
    remedy = "expected 2 dimensions; save each slice as a file of its own"
    assert fault(check_image, deep, 2, 1) == f"has 3 spatial dimensions (6 x 4 x 1); {remedy}"
    assert fault(check_label, deep, 2, [0]) == f"has 3 spatial dimensions (6 x 4 x 1); {remedy}"


@pytest.mark.parametrize(("name", "shape"), [("a.tif", (6, 4)), ("a.nii.gz", (6, 4, 3))])
def test_values_that_are_not_finite(tmp_path, name, shape):
    array = np.ones(shape, np.float32)
    array[5, 1], array[2, 3] = np.nan, np.inf
    line = fault(check_image, save(tmp_path / name, array), len(shape), 1)
    bad, first = (2, "2, 3") if len(shape) == 2 else (6, "2, 3, 0")
    assert line == (
        f"has values that are NaN or infinite ({bad} of {array.size} values, first at index ({first})); expected "
        "finite numbers; replace them, for example by 0"
    )


def test_files_of_one_image_that_differ_in_size(tmp_path):
    first, second = save(tmp_path / "t1.nii", noise(5, 4, 3)), save(tmp_path / "t2.nii", noise(5, 4, 2))
    with pytest.raises(InputError) as caught:
        check_image([first, second], 3, 2)
    assert str(caught.value) == f"{second}: is 5 x 4 x 2; expected 5 x 4 x 3 as {first}; resample it to the same grid"


def test_labels_that_are_right(tmp_path):
    label = np.arange(12).reshape(4, 3) % 3
    assert check_label(save(tmp_path / "a.png", label.astype(np.uint8)), 2, [0, 1, 2])[0].shape == (4, 3)
    assert check_label(save(tmp_path / "a.tif", label.astype(np.float32)), 2, [0, 1, 2])[0].shape == (4, 3)
    assert check_label(save(tmp_path / "ids.png", (label * 1000).astype(np.uint16)), 2, None)[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("pixels", "values", "line"),
    [
        (
            {(3, 1): 255, (2, 2): 255},
            [0, 1],
            "255 (2x); 2 of 24 values, first at index (2, 2); expected 0, 1; "
            f"divide by 255 (a mask saved as 0/255), or {PREPARE}",
        ),
        (
            {(3, 1): 7, (4, 2): 2, (5, 3): 7},
            [0, 1],
            f"2 (1x), 7 (2x); 3 of 24 values, first at index (3, 1); expected 0, 1; {PREPARE}",
        ),
        (
            {(i, 0): 10 + i for i in range(6)},
            [0, 1],
            "10 (1x), 11 (1x), 12 (1x), 13 (1x) and 2 others; 6 of 24 values, first at index (0, 0); "
            f"expected 0, 1; {PREPARE}",
        ),
        (
            {(1, 1): -1, (2, 1): 0.5},
            None,
            "-1 (1x), 0.5 (1x); 2 of 24 values, first at index (1, 1); expected non-negative integers; " + PREPARE,
        ),
    ],
)
def test_labels_with_other_values(tmp_path, pixels, values, line):
    label = np.zeros((6, 4), np.float32)
    for place, value in pixels.items():
        label[place] = value
    assert fault(check_label, save(tmp_path / "a.tif", label), 2, values) == f"holds other labels: {line}"


def test_a_label_in_colours(tmp_path):
    assert fault(check_label, save(tmp_path / "a.png", noise(6, 4, 3)), 2, [0, 1]) == (
        f"has 3 channels; expected a label map of 1 channel; save the class numbers, not colours: {PREPARE}"
    )


def test_an_item_names_each_of_its_faults(tmp_path):
    image, label = save(tmp_path / "a.png", noise(6, 4, 3)), save(tmp_path / "b.png", np.full((6, 4), 2, np.uint8))
    both = ("image", "label")
    first, second = map(str, check_item({"image": image, "label": label}, both, 2, 1, [0, 1]))
    assert first.startswith(f"{image}: number of channels is 3") and second.startswith(
        f"{label}: holds other labels: 2"
    )
    assert check_item({"image": image, "label": label}, both, 2, 3, [2]) == []
    assert check_item({"image": image, "label": "gone"}, ("image",), 2, 3, [2]) == []


def test_a_label_of_another_size(tmp_path):
    image, label = save(tmp_path / "a.png", noise(6, 4)), save(tmp_path / "b.png", np.zeros((4, 6), np.uint8))
    [error] = check_item({"image": image, "label": label}, ("image", "label"), 2, 1, [0])
    assert str(error) == f"{label}: is 4 x 6; expected 6 x 4 as its image {image}; pair it with its own image"


@pytest.mark.parametrize("item", [{"image": "a"}, {"image": "a", "label": None}, {"image": "a", "label": ["b"]}])
def test_an_entry_without_a_label(item):
    *_, error = check_item(item, ("image", "label"), 2, 1, [0])
    assert str(error) == (
        f'entry {item}: has no path under "label"; expected "label": path; add it to dataset.json, or remove the entry'
    )


LIMIT = np.float32(np.sqrt(np.finfo(np.float32).max))  # rounded to below


@pytest.mark.parametrize(
    ("name", "dims"),
    [("a.tif", 2), ("a.nii", 3), ("a.nii.gz", 3), ("a.nrrd", 3), ("a.mha", 3)],
    ids=lambda value: str(value),
)
def test_values_whose_squares_are_infinite(tmp_path, name, dims):
    values = np.linspace(-LIMIT, LIMIT, 16 * 12 * 5, dtype=np.float32).reshape((16, 12, 5))
    values = values[..., 0] if dims == 2 else values
    assert check_image(save(tmp_path / f"large_{name}", values), dims, 1).shape == values.shape
    values[:, 3] = np.finfo(np.float32).min
    path = save(tmp_path / name, values)
    index = "(0, 3)" if dims == 2 else "(0, 3, 0)"
    assert fault(check_image, path, dims, 1) == (
        f"has values beyond 1.8e+19, the first -3.40282e+38 ({values[:, 3].size} of {values.size} values, first at "
        f"index {index}); expected numbers whose squares are finite in float32; replace them, for example by 0, where "
        "they stand for missing data"
    )
    labels = np.zeros_like(values)
    labels[:, 3] = np.finfo(np.float32).max  # an integer of at least 0, too
    path = save(tmp_path / f"label_{name}", labels)
    assert fault(check_label, path, dims, None).startswith("has values beyond 1.8e+19, the first 3.40282e+38 (")


@pytest.mark.parametrize(
    ("value", "others", "note"),
    [
        (-32768, (0, 255), "has -32768 at 12 of 192 values, far below all others (0 to 255)"),
        (-1e9, (-1024, 3000), "has -1e+09 at 12 of 192 values, far below all others (-1024 to 3000)"),
        (1e15, (0, 1), "has 1e+15 at 12 of 192 values, far above all others (0 to 1)"),
        (-3024, (-1024, 3000), None),  # outside of a scanner's circle
        (-11, (0, 1), "has -11 at 12 of 192 values, far below all others (0 to 1)"),
        (-9, (0, 1), None),
        (0, (1000, 1010), None),  # outside of a mask
        (-32768, (5, 5), None),  # two values only
    ],
)
def test_a_value_far_from_all_others_is_noted(value, others, note):
    values = np.linspace(*others, 192, dtype=np.float32).reshape((1, 16, 12))
    values[0, 3] = value
    notes = [str(found) for found in check_image_values(values, ["a.tif"], 2, note_nothing)]
    rest = "expected intensities of one range; replace it by one of the others if it stands for missing data"
    assert notes == ([f"a.tif: {note}; {rest}"] if note else [])
    values[0, 3, 1:] = others[0]  # a single pixel empties the picture as well
    notes = [str(found) for found in check_image_values(values, ["a.tif"], 2, note_nothing)]
    assert notes == ([f"a.tif: {note.replace('at 12', 'at 1')}; {rest}"] if note else [])
