"""What a phantom's truth file says, counted again in its images and label maps."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.data import load_decathlon_datalist
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from PIL import Image
from scipy import ndimage

from bundlekit.errors import InputError
from bundlekit.phantoms import KINDS, Phantom, PhantomKind, make_dataset
from bundlekit.phantoms.__main__ import main
from bundlekit.phantoms.em import membrane_em
from tests import commands

NAME = "membrane_em_segmentation"
PICTURES = ["gland_histology_segmentation", NAME, "nuclei_microscopy_segmentation"]
SMALL = {"training": 2, "validation": 1, "test": 1, "size": 64}


def bytes_in(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def dice(prediction, label):
    return 2 * np.count_nonzero(prediction & (label == 1)) / (np.count_nonzero(prediction) + np.count_nonzero(label))


@pytest.fixture(scope="module")
def phantoms():
    return [membrane_em(np.random.default_rng([7, i]), 192) for i in range(6)]


def test_cells_are_as_many_as_the_truth_says_and_touch_nowhere(phantoms):
    for phantom in phantoms:
        cells, by_edge = ndimage.label(phantom.label == 0)
        _, by_corner = ndimage.label(phantom.label == 0, np.ones((3, 3)))
        assert by_edge == by_corner == phantom.truth["cells"] >= 8
        for left, right in ((cells[:, :-2], cells[:, 2:]), (cells[:-2], cells[2:])):  # a gap of 1 px would show here
            assert not np.any((left != right) & (left > 0) & (right > 0))


def test_labels_are_membrane_and_cell(phantoms):
    for phantom in phantoms:
        assert phantom.image.dtype == phantom.label.dtype == np.uint8
        assert phantom.image.shape == phantom.label.shape == (192, 192)
        assert set(np.unique(phantom.label)) == {0, 1}
        assert phantom.truth["membrane_share"] == np.count_nonzero(phantom.label) / phantom.label.size
        # At most 5 px wide where two cells meet; more where three do or a splinter was filled: most, but not all of it.
        assert np.mean(ndimage.distance_transform_edt(phantom.label)[phantom.label == 1] <= 3) > 0.95


def test_membrane_is_dark_but_darkness_alone_does_not_find_it(phantoms):
    for phantom in phantoms:
        image, label = phantom.image, phantom.label
        assert np.median(image[label == 1]) < np.percentile(image[label == 0], 20)
        best = max(dice(image < threshold, label) for threshold in range(256))
        assert 0.4 < best < 0.8  # a small U-Net gets beyond this, see below


def test_organelles_are_dark_and_not_membrane(phantoms):
    assert sum(phantom.truth["mitochondria"] for phantom in phantoms) >= len(phantoms)
    assert sum(phantom.truth["vesicles"] for phantom in phantoms) >= 10 * len(phantoms)
    for phantom in phantoms:
        inside = ndimage.distance_transform_edt(phantom.label == 0) > 4
        typical = np.median(phantom.image[phantom.label == 1])
        # Of the pixels deep in cells 1 to 2 % are as dark as membrane without mitochondria, and 5 to 11 % with them.
        assert np.mean(phantom.image[inside] < typical) > 0.03


@pytest.mark.slow
def test_a_small_unet_learns_it_in_100_steps():
    torch.manual_seed(0)
    made = [membrane_em(np.random.default_rng([7, i]), 192) for i in range(12)]
    images = torch.stack([torch.tensor(p.image / 255 - 0.5, dtype=torch.float32)[None] for p in made])
    labels = torch.stack([torch.tensor(p.label).long()[None] for p in made])
    net = UNet(2, 1, 2, (16, 32, 64, 128), (2, 2, 2), num_res_units=1)
    optimizer, loss = torch.optim.Adam(net.parameters(), 3e-3), DiceCELoss(softmax=True, to_onehot_y=True)
    for _ in range(100):
        batch, (row, column) = torch.randperm(8)[:4], torch.randint(0, 65, (2,))
        crop = (batch, slice(None), slice(row, row + 128), slice(column, column + 128))
        optimizer.zero_grad()
        loss(net(images[crop]), labels[crop]).backward()
        optimizer.step()
    with torch.no_grad():
        found = net.eval()(images[8:]).argmax(1, keepdim=True).numpy() == 1
    truth = labels[8:].numpy()
    best_threshold = max(dice(images[8:].numpy() < t, truth) for t in np.linspace(-0.5, 0.5, 101))
    assert dice(found, truth) > best_threshold + 0.1


def test_monai_reads_the_dataset(tmp_path):
    make_dataset(NAME, tmp_path, **SMALL)
    numbers = []
    for section, count in (("training", 2), ("validation", 1), ("test", 1)):
        items = load_decathlon_datalist(tmp_path / "dataset.json", data_list_key=section, base_dir=tmp_path)
        assert len(items) == count
        for item in items:
            image, label = (np.asarray(Image.open(item[key])) for key in ("image", "label"))
            assert image.shape == label.shape == (64, 64)
            assert item["image"].rsplit("/", 1)[1] == item["label"].rsplit("/", 1)[1]
            numbers.append(item["image"].rsplit("/", 1)[1])
    assert numbers == ["000.png", "001.png", "002.png", "003.png"]
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["name"] == NAME
    assert content["labels"] == {"0": "cell", "1": "membrane"}
    assert content["modality"] == {"0": "EM"}
    assert (content["numTraining"], content["numTest"]) == (2, 1)


def test_truth_file_agrees_with_the_label_files(tmp_path):
    make_dataset(NAME, tmp_path, **SMALL)
    truths = json.loads((tmp_path / "truth.json").read_text())["images"]
    assert [truth["image"] for truth in truths] == [f"images/{i:03d}.png" for i in range(4)]
    for truth in truths:
        label = np.asarray(Image.open(tmp_path / truth["image"].replace("images", "labels")))
        assert truth["cells"] == ndimage.label(label == 0)[1]
        assert truth["membrane_share"] == label.mean()


def test_same_seed_same_bytes_other_seed_other_image(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_dataset(NAME, tmp_path / name, **SMALL, seed=seed)
    a, b, c = (bytes_in(tmp_path / name) for name in "abc")
    assert a == b
    assert len({*(a[f"images/{i:03d}.png"] for i in range(4)), *(c[f"images/{i:03d}.png"] for i in range(4))}) == 8


def test_an_image_does_not_depend_on_how_many_others_there_are(tmp_path):
    make_dataset(NAME, tmp_path / "few", training=0, validation=1, test=1, size=64)
    make_dataset(NAME, tmp_path / "many", training=3, validation=0, test=0, size=64)
    few, many = bytes_in(tmp_path / "few"), bytes_in(tmp_path / "many")
    for name in ("images/000.png", "images/001.png", "labels/000.png", "labels/001.png"):
        assert few[name] == many[name]
    assert "training" not in json.loads(few["dataset.json"])  # empty sections are left out


def test_writing_again_gives_the_same_folder(tmp_path):
    make_dataset(NAME, tmp_path, **SMALL)
    before = bytes_in(tmp_path)
    make_dataset(NAME, tmp_path, **SMALL)
    assert bytes_in(tmp_path) == before


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        {"images/000.png": "mine", "dataset.json": "{}"},
        {"dataset.json": "{}", "truth.json": '{"name": "another_bundle"}'},
        {"truth.json": "[]"},
        {"truth.json": "no JSON"},
        {"truth.json": json.dumps({"name": NAME}), "images/007.png": "of a larger phantom"},
    ],
)
def test_foreign_files_are_left_alone(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="expected a new or empty folder; choose another"):
        make_dataset(NAME, tmp_path, **SMALL)
    assert bytes_in(tmp_path) == {name: text.encode() for name, text in files.items()}


@pytest.mark.parametrize("name", PICTURES)
def test_same_generator_same_phantom(name):
    a, b = (KINDS[name].generate(np.random.default_rng([1, 2]), 96) for _ in range(2))
    assert np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label) and a.truth == b.truth


@pytest.mark.parametrize("name", PICTURES)
def test_size_below_the_least(name):
    with pytest.raises(ValueError, match="size is 63 px; expected at least 64 px"):
        KINDS[name].generate(np.random.default_rng(0), 63)


def test_a_new_kind_is_one_entry_and_may_be_a_volume(tmp_path, monkeypatch):
    def ball(rng, size):
        x, y, z = np.mgrid[:size, : size + 1, : size + 2] - size / 2
        label = (x**2 + y**2 + z**2 < rng.uniform(9, 16)).astype(np.uint8)
        return Phantom((100 * label).astype(np.float32), label, {"voxels": int(label.sum())})

    monkeypatch.setitem(KINDS, "ball", PhantomKind(ball, "a ball", ("T1",), ("background", "ball"), ".nii.gz"))
    for folder in ("a", "b"):
        make_dataset("ball", tmp_path / folder, training=2, validation=0, test=0, size=8)
    assert bytes_in(tmp_path / "a") == bytes_in(tmp_path / "b")
    for truth in json.loads((tmp_path / "a/truth.json").read_text())["images"]:
        image = nibabel.load(tmp_path / "a" / truth["image"])
        label = nibabel.load(tmp_path / "a" / truth["image"].replace("images", "labels"))
        assert image.shape == label.shape == (8, 9, 10)
        assert np.count_nonzero(np.asarray(image.dataobj) == 100) == np.asarray(label.dataobj).sum() == truth["voxels"]
        assert label.get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "membrane"}, f"'membrane'; expected one of .*{NAME}"),
        ({"training": -1}, "'training': -1.*expected counts of at least 0"),
        ({"training": 0, "validation": 0, "test": 0}, "expected counts of at least 0, and at least one above 0"),
        ({"size": 63}, "size is 63 px; expected at least 64 px"),
        ({"seed": -1}, "non-negative"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(**{"name": NAME, "directory": tmp_path, **SMALL, **changes})


def test_command_line_writes_what_it_is_asked_for(tmp_path):
    counts = ["--training", "1", "--validation", "2", "--test", "0", "--size", "80", "--seed", "5"]
    main([NAME, str(tmp_path / "cli"), *counts])
    make_dataset(NAME, tmp_path / "api", training=1, validation=2, test=0, size=80, seed=5)
    assert bytes_in(tmp_path / "cli") == bytes_in(tmp_path / "api")
    assert np.asarray(Image.open(tmp_path / "cli/images/002.png")).shape == (80, 80)


def test_command_line_names_the_known_ones_without_a_traceback(tmp_path):
    run = commands.run("-m", "bundlekit.phantoms", "membrane", tmp_path / "new")
    assert run.returncode == 2
    assert f"expected one of {', '.join(sorted(KINDS))}" in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "new").exists()


def test_command_line_refuses_a_foreign_folder(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main([NAME, str(tmp_path)])
    assert stop.value.code == 2
    assert "notes.txt; expected a new or empty folder" in capsys.readouterr().err
