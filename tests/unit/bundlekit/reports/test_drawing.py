"""Overlays, read back: hand-derived colours at hand-derived places."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose, LoadImage, SaveImage
from PIL import Image

from bundlekit.errors import InputError
from bundlekit.phantoms import make_dataset
from bundlekit.reports.drawing import draw_section, main
from bundlekit.reports.panels import save_panels

ORANGE, SKY = (230, 159, 0), (86, 180, 233)
GAP, CAPTION = 8, 26


def panels_of(path, count, title=False):
    """The panels of an overlay, cut out of its page."""
    with Image.open(path) as file:
        page = np.asarray(file).astype(int)
    width = (page.shape[1] - GAP) // count - GAP
    top = CAPTION * (1 + title)
    return [page[top:-GAP, GAP + i * (width + GAP) :][:, :width] for i in range(count)]


def at(panel, row, column, shape):
    """Colour at the middle of a pixel of the image that a panel of it shows."""
    scale = np.array(panel.shape[:2]) / shape
    y, x = ((np.array([row, column]) + 0.5) * scale).astype(int)
    return tuple(panel[y, x])


def test_panels_show_image_truth_and_prediction(tmp_path):
    image = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    truth, prediction = np.zeros((2, 4, 6), np.uint8)
    truth[1, 2:4] = 1
    prediction[1, 3] = 1
    save_panels(image, truth, prediction, tmp_path / "o.png")
    shown, with_truth, with_prediction = panels_of(tmp_path / "o.png", 3)
    magnified = np.kron(image.astype(int), np.ones((85, 85), int))  # 512 // 6
    assert np.array_equal(shown, np.repeat(magnified[..., None], 3, axis=2))
    for panel, label in ((with_truth, truth), (with_prediction, prediction)):
        inside = np.kron(label, np.ones((85, 85), int)) == 1
        assert np.array_equal(panel[~inside], shown[~inside])
        rows, columns = np.nonzero(inside)
        outline = [(rows.min(), columns.min()), (rows.max(), columns.max()), (rows.min(), columns.max())]
        assert all(tuple(panel[place]) == ORANGE for place in outline)
        for row, column in np.argwhere(label):
            tint = 0.65 * image[row, column] + 0.35 * np.array(ORANGE)
            assert np.allclose(at(panel, row, column, image.shape), tint, atol=0.5)  # rounded to 8 bits


def test_a_label_has_one_colour_wherever_it_occurs(tmp_path):
    truth, prediction = np.zeros((2, 3, 16), int)
    truth[1] = np.repeat(np.arange(8), 2)
    prediction[1, 4:6] = 2  # without a neighbour: it must not get the colour of label 1
    save_panels(np.zeros((3, 16), np.uint8), truth, prediction, tmp_path / "o.png")
    _, with_truth, with_prediction = panels_of(tmp_path / "o.png", 3)
    assert at(with_prediction, 1, 4, truth.shape) == at(with_truth, 1, 4, truth.shape)
    assert np.allclose(at(with_truth, 1, 4, truth.shape), 0.35 * np.array(SKY), atol=0.5)
    colours = np.array([at(with_truth, 1, 2 * k, truth.shape) for k in range(8)], float)
    gaps = np.abs(colours[:, None] - colours[None]).max(axis=2)
    assert gaps[~np.eye(8, dtype=bool)].min() > 15  # black and seven colours, all tints at 35 %


def test_without_truth_there_are_two_panels(tmp_path):
    image = np.full((4, 4), 50, np.uint8)
    save_panels(image, None, np.eye(4, dtype=np.uint8), tmp_path / "o.png", title="a title")
    shown, painted = panels_of(tmp_path / "o.png", 2, title=True)
    assert shown.shape == painted.shape == (512, 512, 3)
    assert np.all(shown == 50)
    assert at(painted, 0, 1, (4, 4)) == (50, 50, 50) != at(painted, 1, 1, (4, 4))


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(bool, 0, 1), (np.uint16, 300, 60000), (np.int16, -1000, 400), (np.float16, -2.5, 2.5), (np.float64, 0.1, 1e9)],
)
def test_intensities_of_any_type_are_stretched(tmp_path, dtype, low, high):
    image = np.array([[low, high], [high, low]], dtype)
    save_panels(image, None, np.zeros((2, 2), bool), tmp_path / "o.png")
    shown, _ = panels_of(tmp_path / "o.png", 2)
    assert [at(shown, 0, 0, (2, 2)), at(shown, 0, 1, (2, 2))] == [(0, 0, 0), (255, 255, 255)]


def test_constant_and_not_finite_images_can_be_drawn(tmp_path):
    for value in (7.0, np.nan):
        save_panels(np.full((2, 2), value), None, np.zeros((2, 2)), tmp_path / "o.png")
        shown, _ = panels_of(tmp_path / "o.png", 2)
        assert len(np.unique(shown)) == 1


def test_colours_stay_and_alpha_is_dropped(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 200, 0]], [[0, 0, 100], [9, 8, 7]]], np.uint8)
    for image in (colours, np.concatenate([colours, np.full((2, 2, 1), 77, np.uint8)], axis=2)):
        save_panels(image, None, np.zeros((2, 2)), tmp_path / "o.png")
        shown, _ = panels_of(tmp_path / "o.png", 2)
        assert [[at(shown, r, c, (2, 2)) for c in (0, 1)] for r in (0, 1)] == [[tuple(c) for c in r] for r in colours]


def test_of_a_volume_the_slice_with_most_label_is_shown(tmp_path):
    image = np.broadcast_to(np.arange(5, dtype=np.uint8) * 20, (6, 6, 5))
    truth, prediction = np.zeros((2, 6, 6, 5), np.uint8)
    truth[0, 0, 1], truth[0, :2, 3] = 2, 1  # slice 3 has more pixels, slice 1 the higher values
    prediction[..., 4] = 1
    cases = [(image, truth, 3), (image, None, 4), (image, np.zeros_like(truth), 4)]
    cases.append((np.stack([image, image + 100], axis=3), truth, 3))  # of several channels the first
    for shown_image, right, k in cases:
        save_panels(shown_image, right, prediction, tmp_path / "o.png")
        panels = panels_of(tmp_path / "o.png", 2 if right is None else 3, title=True)
        assert at(panels[0], 5, 5, (6, 6)) == (20 * k,) * 3
    save_panels(image, None, np.zeros_like(truth), tmp_path / "o.png")
    assert at(panels_of(tmp_path / "o.png", 2, title=True)[0], 0, 0, (6, 6)) == (40, 40, 40)


def test_large_images_are_reduced(tmp_path):
    image = np.zeros((600, 2048), np.uint8)
    image[:, 1024:] = 200
    save_panels(image, None, (image > 0).astype(int), tmp_path / "o.png")
    shown, painted = panels_of(tmp_path / "o.png", 2)
    assert shown.shape == (300, 1024, 3)
    assert [tuple(shown[150, x]) for x in (100, 900)] == [(0, 0, 0), (200, 200, 200)]
    assert tuple(painted[150, 100]) == (0, 0, 0) != tuple(painted[150, 900]) != (200, 200, 200)


@pytest.mark.parametrize(
    ("image", "truth", "prediction"),
    [((4, 5), None, (5, 4)), ((4, 5), (5, 4), (4, 5)), ((4,), None, (4,)), ((4, 5, 3, 1), None, (4, 5))],
)
def test_shapes_that_do_not_fit_are_refused(tmp_path, image, truth, prediction):
    right = None if truth is None else np.zeros(truth)
    with pytest.raises(ValueError, match="image's own space"):
        save_panels(np.zeros(image), right, np.zeros(prediction), tmp_path / "o.png")
    assert not list(tmp_path.iterdir())


def write_dataset(folder, images, labels):
    """A test section of PNG images, the last of which has no label."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    items = []
    for name, image in images.items():
        Image.fromarray(image).save(folder / "images" / name)
        items.append({"image": f"images/{name}"})
        if name in labels:
            Image.fromarray(labels[name]).save(folder / "labels" / name)
            items[-1]["label"] = f"labels/{name}"
    (folder / "dataset.json").write_text(json.dumps({"test": items}))


def test_what_monai_saved_is_shown_upright(tmp_path):
    image, label = np.zeros((2, 20, 30), np.uint8)
    image[2:6, 20:28] = label[2:6, 20:28] = 1  # a bar at the upper right
    image *= 200
    write_dataset(tmp_path, {"a.b.png": image, "plain.png": image}, {"a.b.png": label})
    # An identity model, with MONAI's readers and writers on both sides.
    save = SaveImage(tmp_path / "eval", "seg", ".png", np.uint8, separate_folder=False, print_log=False)
    predict = Compose([LoadImage(ensure_channel_first=True), lambda x: x / 200, save])
    for name in ("a.b.png", "plain.png"):
        predict(tmp_path / "images" / name)
    paths = draw_section(tmp_path, "test", tmp_path / "eval", tmp_path / "overlays")
    assert paths == [tmp_path / "overlays/a.b.png", tmp_path / "overlays/plain.png"]
    for path, count in zip(paths, (3, 2), strict=True):
        shown, *painted = panels_of(path, count, title=True)
        assert shown.shape == (17 * 20, 17 * 30, 3)
        assert [at(shown, *place, (20, 30)) for place in ((3, 25), (3, 4), (17, 25))] == [
            (200,) * 3,
            (0,) * 3,
            (0,) * 3,
        ]
        for panel in painted:
            tint = 0.65 * 200 + 0.35 * np.array(ORANGE)
            assert np.allclose(at(panel, 3, 25, (20, 30)), tint, atol=0.5)
            assert at(panel, 3, 4, (20, 30)) == at(panel, 17, 25, (20, 30)) == (0, 0, 0)
    assert draw_section(tmp_path, "test", tmp_path / "eval", tmp_path / "one", limit=1) == [tmp_path / "one/a.b.png"]
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["a.b.png"]


def test_a_colour_image_keeps_its_colours(tmp_path):
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = (10, 200, 90)
    write_dataset(tmp_path, {"c.png": image}, {})
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "c_seg.png")
    (path,) = draw_section(tmp_path, "test", tmp_path, tmp_path / "overlays")
    shown, _ = panels_of(path, 2, title=True)
    assert [at(shown, 4, 4, (8, 16)), at(shown, 4, 12, (8, 16))] == [(0, 0, 0), (10, 200, 90)]


def test_volumes_look_alike_however_they_are_stored(tmp_path):
    image = np.zeros((10, 12, 5), np.float32)  # axes to the right, the front and the head
    image[:4, 9:, :] = 100  # on the patient's left, in front
    ras = nibabel.Nifti1Image(image, np.eye(4))
    to_pir = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt("PIR")
    )
    pictures = []
    for name, stored in (("ras", ras), ("pir", ras.as_reoriented(to_pir))):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        nibabel.save(stored, folder / "images/v.nii.gz")
        label = nibabel.Nifti1Image((np.asarray(stored.dataobj) > 50).astype(np.uint8), stored.affine)
        nibabel.save(label, folder / "v_seg.nii.gz")
        (folder / "dataset.json").write_text('{"test": [{"image": "images/v.nii.gz", "label": "v_seg.nii.gz"}]}')
        (path,) = draw_section(folder, "test", folder, folder / "overlays")
        assert path == folder / "overlays/v.png"
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]
    shown = panels_of(path, 3, title=True)[0]
    assert shown.shape == (12 * 42, 10 * 42, 3)
    bright = np.argwhere(shown[..., 0] == 255)
    assert bright.min(axis=0).tolist() == [0, 6 * 42]  # the front is up, the patient's left on the right
    assert bright.max(axis=0).tolist() == [3 * 42 - 1, 10 * 42 - 1]


@pytest.fixture
def dataset(tmp_path):
    make_dataset("membrane_em_segmentation", tmp_path, training=0, validation=0, test=1, size=64)
    return tmp_path


def test_missing_and_wrong_files_are_named(dataset):
    arguments = ("test", dataset / "eval", dataset / "overlays")
    with pytest.raises(InputError, match=r"000_seg\.png: cannot be opened .*; run the bundle's inference"):
        draw_section(dataset, *arguments)
    with pytest.raises(InputError, match="no list 'validation'"):
        draw_section(dataset, "validation", *arguments[1:])
    (dataset / "eval").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(dataset / "eval/000_seg.png")
    with pytest.raises(InputError, match=r"000_seg\.png: has 3 channels; expected a label map of 1 channel"):
        draw_section(dataset, *arguments)
    Image.fromarray(np.zeros((32, 64), np.uint8)).save(dataset / "eval/000_seg.png")
    with pytest.raises(ValueError, match=r"prediction of shape \(32, 64\)"):
        draw_section(dataset, *arguments)
    assert not (dataset / "overlays").exists()


def test_command_line(dataset, capsys):
    words = ["--dataset_dir", str(dataset), "--output_dir", str(dataset), "--destination", str(dataset / "overlays")]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "000_seg.png: cannot be opened" in capsys.readouterr().err
    Path(dataset / "labels/000.png").replace(dataset / "000_seg.png")
    (dataset / "dataset.json").write_text('{"test": ["images/000.png"], "other": [{"image": "images/000.png"}]}')
    main(words)
    assert capsys.readouterr().out == f"{dataset}/overlays/000.png\n"
    main([*words, "--section", "other", "--limit", "0"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("files", "output"), [(("a_b_T2", "a_b_T1"), "a_b"), (("a_0000", "a_0001"), "a_0000")])
def test_an_image_of_several_files_has_the_prediction_of_its_case(tmp_path, files, output):
    volume = nibabel.Nifti1Image(np.arange(60, dtype=np.uint8).reshape(5, 4, 3), np.eye(4))
    for name in (*files, f"{output}_seg"):
        nibabel.save(volume, tmp_path / f"{name}.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [{"image": [f"{name}.nii.gz" for name in files]}]}))
    assert draw_section(tmp_path, "test", tmp_path, tmp_path / "overlays") == [tmp_path / f"overlays/{output}.png"]
