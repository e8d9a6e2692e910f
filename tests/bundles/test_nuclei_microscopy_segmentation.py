"""What is particular to the nuclei bundle: file types, polarity, instances, tiles, scores, schedules, encoder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import itk
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import set_determinism
from PIL import Image
from skimage.draw import disk

from bundlekit.inference.record import RunRecord
from bundlekit.inference.tiles import OverlapTileInferer
from bundlekit.metrics import match_counts
from bundlekit.phantoms.nuclei import nuclei_microscopy
from tests import commands
from unet_ode.nets import VGGUNet

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/nuclei_microscopy_segmentation"
SHAPE = (70, 111)
CENTRES = [(20, 25), (20, 40), (50, 30), (48, 85)]  # the first two touch
RADIUS_PX = 9


def discs() -> np.ndarray:
    ids = np.zeros(SHAPE, np.uint16)
    for number, centre in enumerate(CENTRES, start=1):
        place = disk(centre, RADIUS_PX, shape=SHAPE)
        nearer = np.hypot(place[0] - CENTRES[0][0], place[1] - CENTRES[0][1]) > np.hypot(
            place[0] - centre[0], place[1] - centre[1]
        )
        ids[place] = np.where(nearer | (ids[place] == 0), number, ids[place])
    return ids


def threshold_weights() -> dict[str, torch.Tensor]:
    """A network whose output is positive where the normalised image is: only the first skip decides."""
    network = VGGUNet(width=0.25)
    weights = network.state_dict()
    for name, value in weights.items():
        if name.endswith(("weight", "bias")) and name.startswith(("features.", "merge.4.", "up.", "head")):
            value.zero_()
    for i in (1, 4):
        weights[f"features.{i}.weight"][0] = 1
        weights[f"merge.4.{i}.weight"][0] = 1
    weights["features.0.weight"][0, :, 1, 1] = 1 / 3
    weights["features.3.weight"][0, 0, 1, 1] = 1
    weights["merge.4.0.weight"][0, 0, 1, 1] = 1  # the skip comes first, what is from below last
    weights["merge.4.3.weight"][0, 0, 1, 1] = 1
    weights["head.weight"][0, 0] = 1e3
    weights["head.bias"][0] = -1e3
    return weights


def images(folder: Path) -> list[str]:
    """The same discs in every kind of file; their names say what they are."""
    inside = discs() > 0
    light, dark = (np.where(inside, *values).astype(np.uint8) for values in ((200, 40), (60, 230)))
    stained = np.stack([np.where(inside, *v) for v in ((90, 230), (60, 200), (140, 220))], -1).astype(np.uint8)
    alpha = np.arange(light.size, dtype=np.uint8).reshape(SHAPE)
    pictures = {
        "grey_light.png": light,
        "grey_dark.png": dark,
        "rgb_dark.png": stained,
        "rgb_light.png": 255 - stained,
        "grey_alpha.png": np.dstack([dark, alpha]),
        "rgba.png": np.dstack([stained, alpha]),
        "png16_light.png": light.astype(np.uint16) * 150,
        "bit.png": inside,
        "grey.bmp": light,
    }
    for name, array in pictures.items():
        Image.fromarray(array).save(folder / name)
    Image.fromarray(light).convert("P").save(folder / "palette.png")
    turned = Image.Exif()
    turned[274] = 6  # to be shown turned to the right
    Image.fromarray(np.rot90(stained)).save(folder / "turned.png", exif=turned)
    tifffile.imwrite(folder / "white_is_zero.tif", ~light, photometric="miniswhite", compression="lzw")
    Image.fromarray(light).save(folder / "jpeg_light.jpg", quality=95)
    Image.fromarray(stained).save(folder / "jpeg_rgb.jpeg", quality=95, subsampling=0)
    Image.fromarray(stained).save(folder / "tiff_lzw.tif", compression="tiff_lzw")
    Image.fromarray(stained).save(folder / "tiff_jpeg.tif", compression="jpeg", quality=98)
    deep = stained.astype(np.uint16) * 15  # 12 bits of 16
    tifffile.imwrite(folder / "tiff16_dark.tif", dark.astype(np.uint16) * 200)
    tifffile.imwrite(folder / "tiff8_rgb.tiff", stained, photometric="rgb")
    tifffile.imwrite(folder / "tiff16_rgb.tif", deep, photometric="rgb", bigtiff=True)
    tifffile.imwrite(folder / "tiff16_tiles.tif", deep, photometric="rgb", tile=(32, 32), compression="zlib")
    itk.imwrite(itk.image_view_from_array(deep, is_vector=True), str(folder / "png16_rgb.png"))
    return sorted(path.stem for path in folder.iterdir())


def pictures_to_refuse(folder: Path) -> dict[str, str]:
    """What is said of each of them."""
    image = Image.fromarray((discs() > 0).astype(np.uint8) * 200).convert("RGB")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    tifffile.imwrite(folder / "pages.tif", np.zeros((2, *SHAPE), np.uint8), photometric="minisblack")
    two_kinds = np.zeros((2, *SHAPE), np.uint8)
    tifffile.imwrite(folder / "two_kinds.tif", two_kinds, photometric="minisblack", planarconfig="separate")
    return {
        "cmyk.jpg": "number of channels is 4 (CMYK); expected 1 or 3; ",
        "pages.tif": f"holds several images (2 x {SHAPE[0]} x {SHAPE[1]}); expected one; ",
        "two_kinds.tif": "number of channels is 2; expected 1 or 3; ",
    }


def run(configs: str, status: int = 0, **overrides: object) -> str:
    """`python -m monai.bundle run` in the bundle's folder; what it said on stderr."""
    files = [f"configs/{name}.json" for name in configs.split()]
    options = [f"--{key}={value}" for key, value in {"config_file": files, "device": "cpu", **overrides}.items()]
    result = commands.run("-m", "monai.bundle", "run", *options, cwd=BUNDLE)
    assert result.returncode == status, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stderr


def parse(*configs: str, **overrides: object) -> ConfigParser:
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_files([BUNDLE / f"configs/{name}.json" for name in configs]))
    parser.update({"bundle_root": str(BUNDLE), "device": "cpu", "amp": False, **overrides})
    return parser


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_every_kind_of_file_and_polarity_gives_the_same_mask_and_instances(tmp_path):
    (tmp_path / "in").mkdir()
    names = images(tmp_path / "in")
    assert len(names) == 21
    refused = pictures_to_refuse(tmp_path / "in")
    torch.save(threshold_weights(), tmp_path / "model.pt")
    places = {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out", "ckpt_path": tmp_path / "model.pt"}
    errors = run("inference", status=1, **places, instances="true", save_prob="true")
    assert "trained only on phantoms" not in errors and "Traceback" not in errors
    for line, (name, reason) in zip(errors.strip().splitlines()[-len(refused) :], refused.items(), strict=True):
        assert line.startswith(f"left out: {tmp_path / 'in' / name}: {reason}")
    ids = discs()
    assert len(list((tmp_path / "out").glob("*.png"))) == 3 * len(names)
    for name in names:
        mask, instances = (read(tmp_path / f"out/{name}_{kind}.png") for kind in ("seg", "instances"))
        assert mask.dtype == np.uint8 and instances.dtype == np.uint16
        wrong = np.mean(mask != (ids > 0))
        assert wrong == 0 if "jpeg" not in name else wrong < 0.01, name
        # found, each with the greater part of its pixels, and none too many
        assert match_counts(instances.astype(int), ids.astype(int))[6].tolist() == [4, 0, 0], name
        probability = read(tmp_path / f"out/{name}_prob.png")
        assert np.array_equal(probability > 127, mask > 0), name


def test_shipped_weights_find_light_and_dark_discs(tmp_path):
    (tmp_path / "all").mkdir()
    images(tmp_path / "all")
    (tmp_path / "in").mkdir()
    for name in ("grey_light", "grey_dark"):
        (tmp_path / f"all/{name}.png").rename(tmp_path / f"in/{name}.png")
    errors = run("inference", dataset_dir=tmp_path / "in", output_dir=tmp_path / "out")
    assert "trained only on phantoms" not in errors
    wanted = discs() > 0
    for name in ("grey_light", "grey_dark"):
        found = read(tmp_path / f"out/{name}_seg.png") > 0
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.9, name


def test_options_that_are_wrong_are_named_and_no_image_is_blamed(tmp_path):
    (tmp_path / "in").mkdir()
    images(tmp_path / "in")
    wrong = {"tiles::tile_size": 16, "tiles::margin": -3, "neck_px": "x", "threshold": 2, "min_size_px": -1}
    errors = run("inference", status=1, dataset_dir=tmp_path / "in", output_dir=tmp_path / "out", **wrong)
    lines = errors.strip().splitlines()[-len(wrong) :]
    assert {line.split(": ")[1] for line in lines} == set(wrong) and "left out" not in errors
    assert not any("Traceback" in line for line in lines)


def test_other_tiles_segment_a_folder_anew(tmp_path):
    def record(**options: object) -> RunRecord:
        return parse("inference", output_dir=tmp_path, **options).get_parsed_content("record")

    image, output = tmp_path / "a.png", tmp_path / "a_seg.png"
    for path in (image, output):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    first = record()
    first.begin()
    first.mark_finished(str(image), [output])
    assert record().is_finished(str(image))
    assert not record(**{"tiles#margin": 64}).is_finished(str(image))
    assert not record(**{"tiles#tile_size": 256}).is_finished(str(image))


@pytest.fixture
def data(tmp_path) -> Path:
    """Two test images: one segmented to the pixel, in the other one disc has no label and one label no disc."""
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    ids = discs()
    image = np.where(ids > 0, 200, 40).astype(np.uint8)
    other = np.where(ids == 4, 0, ids).astype(np.uint16)
    other[disk((55, 55), 6, shape=SHAPE)] = 9
    for name, label in (("a", ids), ("b", other)):
        Image.fromarray(image).save(tmp_path / f"data/images/{name}.png")
        Image.fromarray(label).save(tmp_path / f"data/labels/{name}.png")
    items = [{"image": f"images/{n}.png", "label": f"labels/{n}.png"} for n in "ab"]
    lists = {"training": items, "validation": items, "test": items, "test_grey": items[:1]}
    (tmp_path / "data/dataset.json").write_text(json.dumps(lists))
    torch.save(threshold_weights(), tmp_path / "model.pt")
    return tmp_path


def test_scores_worked_out_by_hand(data):
    places = {"dataset_dir": data / "data", "output_dir": data / "run", "ckpt_path": data / "model.pt"}
    run("train evaluate", **places)
    content = json.loads((data / "run/metrics.json").read_text())
    metrics, rows = content["metrics"], content["images"]
    found, truth = discs() > 0, read(data / "data/labels/b.png") > 0
    both, sizes = (found & truth).sum(), (found.sum(), truth.sum())
    dice = 2 * both / sum(sizes)
    assert metrics["val_pixel_f1"] == pytest.approx(2 * (found.sum() + both) / (3 * found.sum() + truth.sum()))
    assert [row["val_mean_dice"] for row in rows] == pytest.approx([1, dice])
    # 4 + 3 found, 1 too many, 1 missed; at the strictest overlap the same but for the cut between the touching discs
    assert metrics["val_object_f1_50"] == pytest.approx(2 * 7 / (2 * 7 + 1 + 1))
    assert [row["val_object_f1_50_per_image"] for row in rows] == pytest.approx([1, 6 / 8])
    assert metrics["val_object_f1_50_per_image"] == pytest.approx((1 + 6 / 8) / 2)
    names = {f"val_object_f1_{t}" for t in range(50, 100, 5)} | {"val_object_ap", "val_object_f1_mean"}
    assert names <= metrics.keys() and metrics["val_object_ap"] <= 7 / 9 + 1e-9


def test_a_section_is_scored_alone(data):
    places = {"dataset_dir": str(data / "data"), "output_dir": str(data / "run"), "ckpt_path": str(data / "model.pt")}
    parser = parse("train", "evaluate", section="test_grey", **places)
    parser.get_parsed_content("validate::evaluator").run()
    content = json.loads((data / "run/metrics.json").read_text())
    assert content["num_images"] == 1 and content["metrics"]["val_pixel_f1"] == 1


def test_more_than_255_nuclei_keep_numbers_of_their_own(tmp_path):
    Image.fromarray(np.zeros((250, 341), np.uint8)).save(tmp_path / "many.png")
    parser = parse("inference", output_dir=str(tmp_path), instances=True, min_size_px=4)
    item = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "many.png")})
    dots = (np.indices(item["image"].shape[1:]) % 8 < 4).all(axis=0)
    logits = torch.from_numpy(np.where(dots, 9.0, -9.0)).float()[None]
    parser.get_parsed_content("postprocessing")({**item, "pred": MetaTensor(logits, meta=item["image"].meta)})
    labels, mask = (read(tmp_path / f"many_{kind}.png") for kind in ("instances", "seg"))
    assert np.array_equal(mask.T, dots) and labels.max() == math.ceil(250 / 8) * math.ceil(341 / 8) > 255
    assert len(np.unique(labels)) == labels.max() + 1 and np.array_equal(labels > 0, mask > 0)


def test_training_items_are_masks_of_light_nuclei(data):
    parser = parse("train", dataset_dir=str(data / "data"))
    dataset = parser.get_parsed_content("train::dataset")
    dataset.transform.set_random_state(0)
    lighter = []
    for _ in range(12):
        item = dataset[0]
        image, label = item["image"], item["label"]
        assert image.shape == (3, 256, 256) and label.shape == (1, 256, 256)
        assert set(np.unique(label)) <= {0.0, 1.0} and image.dtype == torch.float32
        lighter.append(bool(image[:, label[0] > 0].mean() > image[:, label[0] == 0].mean()))
    assert sum(lighter) >= 9  # one in ten is inverted


def learning_rates(*configs: str, epochs: int = 40) -> list[float]:
    parser = parse("train", *configs, max_epochs=epochs)
    optimizer, scheduler = (parser.get_parsed_content(name) for name in ("optimizer", "lr_scheduler"))
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == 0.9
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("epochs", [1, 15, 16, 40])
def test_schedules_come_down_from_the_largest_learning_rate_of_the_report(epochs):
    epoch, half = np.arange(epochs), -(-epochs // 2)
    cosine = 0.2 * (1 + np.cos(np.pi * epoch / epochs))
    restarts = 0.2 * (1 + np.cos(np.pi * (epoch % half) / half))
    place = 2 * epoch / max(epochs - 1, 1)  # in cycles; the second one ends with the last epoch
    cyclic = 0.004 + 0.396 * (1 - np.abs(2 * (place % 1) - 1))
    np.testing.assert_allclose(learning_rates(epochs=epochs), cosine, atol=1e-12)
    np.testing.assert_allclose(learning_rates("fit_warm_restart", epochs=epochs), restarts, atol=1e-12)
    np.testing.assert_allclose(learning_rates("fit_cyclic", epochs=epochs), cyclic, atol=1e-12)


@pytest.mark.parametrize("schedule", ["fit_cyclic", "fit_warm_restart"])
def test_schedules_can_be_resumed(schedule, tmp_path):
    """The state that training saves holds nothing that a safe load refuses."""
    scheduler = parse("train", schedule).get_parsed_content("lr_scheduler")
    for _ in range(3):
        scheduler.optimizer.step()
        scheduler.step()
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    other = parse("train", schedule).get_parsed_content("lr_scheduler")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.optimizer.step(), scheduler.optimizer.step()
    other.step(), scheduler.step()
    assert other.get_last_lr() == scheduler.get_last_lr()


def test_encoder_weights_reach_the_network_that_is_trained(tmp_path):
    source = {f"features.{name}": value + 1 for name, value in VGGUNet(width=0.25).features.state_dict().items()}
    torch.save({**source, "classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg.pth")
    network = parse("train", encoder_weights=str(tmp_path / "vgg.pth")).get_parsed_content("network")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in source.items())
    frozen = parse("train", **{"network_def::freeze_encoder": True}).get_parsed_content("network")
    assert not any(p.requires_grad for p in frozen.features.parameters()) and frozen.head.weight.requires_grad


def test_what_cannot_be_trained_with_is_told_before_the_training(tmp_path, capsys):
    options = {"encoder_weights": "none.pth", "tiles::margin": 10, "network_def::batch_norm": "false"}
    parser = parse("train", dataset_dir=str(tmp_path), output_dir=str(tmp_path / "out"), **options)
    with pytest.raises(SystemExit):
        parser.get_parsed_content("run")
    told = capsys.readouterr().err
    for start in ("none.pth: does not exist", "tiles::margin: is 10", "network_def::batch_norm: is 'false'"):
        assert f"error: {start}" in told


@pytest.mark.parametrize("base", ["train", "inference"])
def test_paper_network_has_the_report_s_sizes(base):
    parser = parse(base, "net_paper")
    network, tiles = (parser.get_parsed_content(name) for name in ("network_def", "tiles"))
    assert network.features[0].weight.shape == (64, 3, 3, 3) and network.batch_norm
    assert (tiles.tile_size, tiles.margin) == (128, 64)
    plain = parse(base, "net_no_batch_norm").get_parsed_content("network_def")
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in plain.modules())


@torch.no_grad()
def test_report_s_tiles_are_the_inner_128_of_256_reflected_at_the_border():
    """Four tiles, cut, reflect-padded and put together by hand."""
    network = parse("inference").get_parsed_content("network_def").eval()
    tiles = parse("inference", "net_paper").get_parsed_content("tiles")
    image = torch.rand(1, 3, 256, 256)
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (64, 64), (64, 64)], mode="reflect"))
    rows = []
    for top in (0, 128):
        parts = [network(padded[..., top : top + 256, left : left + 256])[..., 64:192, 64:192] for left in (0, 128)]
        rows.append(torch.cat(parts, dim=3))
    torch.testing.assert_close(tiles(image, network), torch.cat(rows, dim=2), rtol=0, atol=1e-4)  # other batches


@pytest.mark.slow
@torch.no_grad()
def test_tiles_shifted_by_half_leave_the_shipped_network_s_mask_as_it_is(tmp_path):
    """Columns 640 to 1100: a seam of the whole image at 1024, one of its part from column 256 on at 704."""
    image = nuclei_microscopy(np.random.default_rng(1), 1536).image[:256]
    Image.fromarray(image).save(tmp_path / "a.png")
    parser = parse("inference")
    tiles, network = parser.get_parsed_content("tiles"), parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(BUNDLE / "models/model.pt", weights_only=True))
    image = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "a.png")})["image"].as_tensor()[None]
    image = image.transpose(2, 3)  # rows first
    assert (tiles.tile_size, image.shape[3]) == (512, 1536)

    def same(inferer: OverlapTileInferer) -> float:
        whole, part = inferer(image, network)[..., 640:1100] > 0, inferer(image[..., 256:], network)[..., 384:844] > 0
        assert 0.05 < whole.float().mean() < 0.95
        return float((whole == part).float().mean())

    assert same(tiles) >= 0.999 > same(OverlapTileInferer(512, margin=0, divisor=32))
