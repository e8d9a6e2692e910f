"""What is particular to the optic disc bundle: two phases, the way to the network's size and back, report, errors."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from PIL import Image
from scipy import ndimage
from skimage.draw import disk

from bundlekit.phantoms import make_dataset
from unet_ode.nets import Localizer, LocalizerUNet

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/optic_disc_fundus_segmentation"
SIDE = json.loads((BUNDLE / "configs/train.json").read_text())["longest_side_px"]
IMAGES = {  # (columns, rows), centre (x, y), radius, all in px
    "landscape.png": ((120, 80), (70, 36), 12),
    "portrait.png": ((80, 120), (30, 72), 12),
    "grey.png": ((120, 80), (48, 40), 14),
    "photo.jpg": ((350, 300), (190, 140), 40),
    "square.tif": ((60, 60), (30, 31), 11),
}


def parse(*configs: str, **overrides: object) -> ConfigParser:
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_files([BUNDLE / f"configs/{name}.json" for name in configs]))
    parser.update({"bundle_root": str(BUNDLE), "device": "cpu", "amp": False, **overrides})
    return parser


def run(*configs: str, **overrides: object) -> None:
    """All that "run" says, in this process."""
    parse(*configs, **overrides).get_parsed_content("run")


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """(rows, columns)."""
    mask = np.zeros(size[::-1], bool)
    mask[disk(centre[::-1], radius, shape=mask.shape)] = True
    return mask


def write_images(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir()
    masks = {}
    for name, geometry in IMAGES.items():
        masks[name] = disc(*geometry)
        light = np.where(masks[name], 220, 60).astype(np.uint8)
        colours = np.stack([light, light // 2, light // 4], axis=-1)
        Image.fromarray(light if "grey" in name else colours).save(folder / name, quality=95)
    return masks


def brightness_weights() -> dict[str, torch.Tensor]:
    """A U-Net whose logit grows with the image's own value and is 0 at 0.5: only the first skip decides."""
    network = parse("inference").get_parsed_content("network_def")
    weights = network.state_dict()
    last = len(network.merge) - 1
    for name, value in weights.items():
        if name.startswith((f"merge.{last}.conv", f"up.{last}.", "encoder.levels.0.conv", "head")):
            value.zero_()
    for name in ("encoder.levels.0.conv1", "encoder.levels.0.conv2", f"merge.{last}.conv1", f"merge.{last}.conv2"):
        weights[f"{name}.weight"][0, 0, 1, 1] = 1
    weights["head.weight"][0, 0] = 12
    weights["head.bias"][0] = -6
    return weights


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def test_masks_and_report_are_in_the_pixels_of_each_photograph(tmp_path, capsys):
    masks = write_images(tmp_path / "in")
    Image.new("RGB", (90, 70)).save(tmp_path / "in/nothing.png")
    torch.save(brightness_weights(), tmp_path / "model.pt")
    places = {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out", "ckpt_path": tmp_path / "model.pt"}
    run("inference", **places, report="true", save_prob="true")
    with (tmp_path / "out/report.csv").open(newline="") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*IMAGES, "nothing.png"}
    assert [row["image"] for row in json.loads((tmp_path / "out/report.json").read_text())] == list(rows)
    for name, (size, centre, _) in IMAGES.items():
        found = read(tmp_path / f"out/{Path(name).stem}_seg.png")
        assert found.shape == size[::-1] and found.dtype == np.uint8 and set(np.unique(found)) == {0, 1}
        assert dice(found > 0, masks[name]) > 0.95, name
        assert rows[name]["found"] == "yes" and int(rows[name]["area_px"]) == found.sum()
        at = [float(rows[name][f"centre_{axis}_px"]) for axis in "xy"]
        assert np.allclose(at, ndimage.center_of_mass(found)[::-1], atol=0.01)
        assert np.hypot(*np.subtract(at, centre)) < 0.5 * max(size) / SIDE + 0.2, name
        assert float(rows[name]["diameter_px"]) == pytest.approx(2 * math.sqrt(found.sum() / math.pi), abs=1e-3)
        assert np.array_equal(read(tmp_path / f"out/{Path(name).stem}_prob.png") > 127, found > 0)
    assert rows["nothing.png"]["found"] == "no" and rows["nothing.png"]["diameter_px"] == ""
    assert not read(tmp_path / "out/nothing_seg.png").any()
    lines = [line for line in capsys.readouterr().err.splitlines() if "no optic disc found" in line]
    assert len(lines) == 1 and f"{tmp_path}/in/nothing.png: no optic disc found; expected one; " in lines[0]


def test_only_the_largest_piece_is_the_disc(tmp_path):
    image = np.where(disc((120, 80), (40, 40), 12) | disc((120, 80), (90, 40), 5), 220, 60).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "two.png")
    torch.save(brightness_weights(), tmp_path / "model.pt")
    run(
        "inference",
        dataset_dir=tmp_path / "two.png",
        output_dir=tmp_path / "out",
        ckpt_path=tmp_path / "model.pt",
    )
    found = read(tmp_path / "out/two_seg.png")
    assert ndimage.label(found)[1] == 1 and found[40, 40] and not found[40, 90]


@pytest.mark.parametrize(("radius_px", "is_disc"), [(5, False), (8, True)])
def test_a_speck_is_no_disc(tmp_path, radius_px, is_disc):
    image = np.where(disc((240, 60), (80, 30), radius_px), 220, 60).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")
    torch.save(brightness_weights(), tmp_path / "model.pt")
    places = {"dataset_dir": tmp_path / "one.png", "ckpt_path": tmp_path / "model.pt"}
    run("inference", **places, output_dir=tmp_path / "out", report="true")
    assert read(tmp_path / "out/one_seg.png").any() == is_disc
    [row] = json.loads((tmp_path / "out/report.json").read_text())
    assert row["found"] == is_disc
    run("inference", **places, output_dir=tmp_path / "all", min_diameter=0)
    assert read(tmp_path / "all/one_seg.png").any()


def test_outputs_of_a_photograph_to_be_turned_are_upright(tmp_path, capsys):
    light = np.where(disc((240, 160), (80, 60), 12), 220, 60).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 8  # to be shown turned to the left
    (tmp_path / "in").mkdir()
    Image.fromarray(light).save(tmp_path / "in/upright.png")
    Image.fromarray(np.rot90(light, -1)).save(tmp_path / "in/turned.png", exif=exif)
    torch.save(brightness_weights(), tmp_path / "model.pt")
    run("inference", dataset_dir=tmp_path / "in", output_dir=tmp_path / "out", ckpt_path=tmp_path / "model.pt")
    turned, upright = (read(tmp_path / f"out/{name}_seg.png") for name in ("turned", "upright"))
    assert upright.any() and turned.shape == (160, 240) and np.array_equal(turned, upright)
    assert "turned.png: has a tag that rotates or mirrors it (EXIF or TIFF orientation 8)" in capsys.readouterr().err


@pytest.fixture
def data(tmp_path) -> Path:
    """The images above with labels and centres, in every list."""
    masks = write_images(tmp_path / "data")
    (tmp_path / "data/labels").mkdir()
    items = []
    for name, mask in masks.items():
        label = f"labels/{Path(name).stem}.png"
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "data" / label)
        items.append({"image": name, "label": label, "centre": IMAGES[name][1]})
    (tmp_path / "data/dataset.json").write_text(json.dumps(dict.fromkeys(("training", "validation", "test"), items)))
    return tmp_path / "data"


def test_dice_is_that_of_the_masks_in_the_photograph_s_own_pixels(data, tmp_path):
    torch.save(brightness_weights(), tmp_path / "model.pt")
    places = {"dataset_dir": data, "ckpt_path": tmp_path / "model.pt"}
    run("train", "evaluate", output_dir=tmp_path, **places)
    run("inference", output_dir=tmp_path / "out", **places)
    scores = {
        row["image"]: row["val_mean_dice"] for row in json.loads((tmp_path / "metrics.json").read_text())["images"]
    }
    assert set(scores) == set(IMAGES)
    for name, value in scores.items():
        found = read(tmp_path / f"out/{Path(name).stem}_seg.png") > 0
        assert value == pytest.approx(dice(found, disc(*IMAGES[name])), abs=1e-6)


def test_distances_are_in_pixels_of_the_photograph_and_in_disc_diameters(data, tmp_path):
    """A localiser that says (60, 75) of its own pixels whatever it sees; where that is, by hand."""
    network = parse("pretrain").get_parsed_content("network_def")
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([60.0, 75.0]) / SIDE - 0.5)
    torch.save(network.state_dict(), tmp_path / "localizer.pt")
    places = {"dataset_dir": data, "output_dir": tmp_path, "ckpt_path": tmp_path / "localizer.pt"}
    run("pretrain", "evaluate_pretrain", **places)
    rows = {row["image"]: row for row in json.loads((tmp_path / "metrics.json").read_text())["images"]}
    for name, (size, centre, _) in IMAGES.items():
        inner = [round(side * SIDE / max(size)) for side in size]
        said = []
        for at, large, small in zip((60, 75), size, inner, strict=True):
            padding = (SIDE - small) // 2
            said.append((at - padding + 0.5) * large / small - 0.5)
        distance = math.hypot(said[0] - centre[0], said[1] - centre[1])
        assert rows[name]["val_distance_px"] == pytest.approx(distance, abs=1e-3), name
        diameter = 2 * math.sqrt(disc(*IMAGES[name]).sum() / math.pi)
        assert rows[name]["val_distance_diameters"] == pytest.approx(distance / diameter, abs=1e-4)


@pytest.mark.parametrize("base", ["train", "pretrain"])
def test_augmentation_takes_mask_and_centre_with_it(data, base):
    parser = parse(base, dataset_dir=data)
    dataset = parser.get_parsed_content("train::dataset")
    dataset.transform.set_random_state(0)
    for i in (0, 1, 3) * 3:
        item = dataset[i]
        image = item["image"].numpy()
        assert image.shape == (1, SIDE, SIDE)
        # the disc is the lightest part by far, whatever was done to brightness and contrast
        lightest = ndimage.label(ndimage.gaussian_filter(image[0], 1) > (image.max() + np.median(image)) / 2)[0]
        sizes = np.bincount(lightest.ravel())[1:]
        seen = ndimage.center_of_mass(lightest == 1 + np.argmax(sizes))
        if base == "pretrain":
            assert item["label"].shape == (2,) and item["label"].dtype == torch.float32
            at = item["label"].numpy()
        else:
            at = ndimage.center_of_mass(item["label"].numpy()[0])
            assert item["label"].shape == (1, SIDE, SIDE) and 0 <= item["label"].min() <= item["label"].max() <= 1
        assert np.hypot(*np.subtract(seen, at)) < 3, (i, seen, at)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    make_dataset(BUNDLE.name, folder, training=2, validation=1, test=1, size=96)
    return folder


def centres_only(source: Path, target: Path) -> dict[str, list]:
    """The same photographs without labels; the lists come back."""
    lists = json.loads((source / "dataset.json").read_text())
    lists = {
        k: [{"image": str(source / i["image"]), "centre": i["centre"]} for i in lists[k]]
        for k in lists
        if k in ("training", "validation", "test")
    }
    target.mkdir()
    (target / "dataset.json").write_text(json.dumps(lists))
    return lists


def test_both_phases(phantoms, tmp_path):
    """Phase 1 needs no label; phase 2 keeps what it got from it and changes all the rest."""
    centres_only(phantoms, tmp_path / "data")
    short = {"max_epochs": 1, "val_interval": 1, "batch_size": 2}
    localizer, model = tmp_path / "localizer.pt", tmp_path / "model.pt"
    run("pretrain", **short, dataset_dir=tmp_path / "data", output_dir=tmp_path / "p", ckpt_path=localizer)
    metrics = json.loads((tmp_path / "p/history.json").read_text())["metrics"]
    assert metrics["val_distance_px"][0][1] > 0 and metrics["val_distance_diameters"] == [[1, None]]
    first = torch.load(localizer, weights_only=True)
    parse("pretrain").get_parsed_content("network_def").load_state_dict(first, strict=True)

    places = {"dataset_dir": phantoms, "output_dir": tmp_path / "t", "ckpt_path": model, "pretrained_path": localizer}
    before = parse("train").get_parsed_content("network_def").state_dict()
    run("train", **short, **places)
    second = torch.load(model, weights_only=True)
    moved = {name for name in second if name.startswith("encoder.")}
    assert moved and all(torch.equal(second[name], first[name]) for name in moved)
    others = [name for name in second if name not in moved and second[name].is_floating_point()]
    assert all(not torch.equal(second[name], before[name]) for name in others)


def test_without_phase_one_all_is_trained():
    network = parse("train", "net_random_init").get_parsed_content("network")
    assert all(p.requires_grad for p in network.parameters()) and network.train().encoder.training


def test_unfrozen_encoder_has_a_tenth_of_the_learning_rate(tmp_path):
    parser = parse("train", "fit_unfreeze", pretrained_path=None)
    groups = parser.get_parsed_content("optimizer").param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.1 * parser["learning_rate"], parser["learning_rate"]])
    network = parser.get_parsed_content("network")
    together = [id(p) for group in groups for p in group["params"]]
    assert sorted(together) == sorted(id(p) for p in network.parameters())
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in network.encoder.parameters()}
    assert parser["train::handlers"][-1]["_target_"] == "bundlekit.training.unfreeze_encoder.UnfreezeEncoder"


def test_a_centre_outside_its_image_is_left_out_by_name(phantoms, tmp_path, capsys):
    lists = centres_only(phantoms, tmp_path / "data")
    lists["training"][1]["centre"] = [96.6, 20]
    (tmp_path / "data/dataset.json").write_text(json.dumps(lists))
    places = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "p", "ckpt_path": tmp_path / "localizer.pt"}
    with pytest.raises(SystemExit) as stop:
        run("pretrain", **places, max_epochs=1)
    assert stop.value.code == 1 and (tmp_path / "localizer.pt").is_file()  # trained on the other one
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("left out: ") and "001.png: its centre (96.6, 20) lies outside the image of 96 x 64" in line


def test_missing_and_foreign_weights_of_phase_one(phantoms, tmp_path, capsys):
    places = {"dataset_dir": phantoms, "output_dir": tmp_path / "t", "ckpt_path": tmp_path / "model.pt"}
    with pytest.raises(SystemExit):
        run("train", **places, pretrained_path=tmp_path / "none.pt")
    assert f"error: {tmp_path}/none.pt: cannot be opened" in capsys.readouterr().err
    other = tmp_path / "other.pt"
    torch.save(Localizer(2, 1, (32, 32), (4, 8)).state_dict(), other)
    with pytest.raises(RuntimeError) as error:
        run("train", **places, pretrained_path=other)
    reasons = []
    cause: BaseException | None = error.value
    while cause:
        reasons.append(str(cause))
        cause = cause.__cause__
    assert any("tensors of the two encoders do not match" in reason for reason in reasons)


def test_shipped_model_comes_from_the_shipped_localizer():
    """Its encoder trained on at a low rate: each convolution points where it did, as no other one would."""
    localizer, model = (torch.load(BUNDLE / f"models/{name}.pt", weights_only=True) for name in ("localizer", "model"))
    network = parse("pretrain").get_parsed_content("network_def")
    network.load_state_dict(localizer, strict=True)
    kernels = [name for name in model if name.startswith("encoder.") and model[name].ndim == 4]
    assert len(kernels) == 12
    for name in kernels:
        own, theirs = model[name].flatten(), localizer[name].flatten()
        assert torch.cosine_similarity(own, theirs, dim=0) > 0.99 and not torch.equal(own, theirs)
    assert isinstance(parse("train").get_parsed_content("network_def"), LocalizerUNet)
