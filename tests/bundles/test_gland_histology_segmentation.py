"""What is particular to the gland bundle: accuracy against speed, maps of objects, pooled scores, targets, overlays."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from monai.utils import set_determinism
from PIL import Image
from scipy import ndimage
from skimage.draw import disk
from skimage.measure import regionprops

from bundlekit.metrics import object_statistics
from bundlekit.phantoms import make_dataset
from tests import commands
from unet_ode.nets import UNode

pytestmark = pytest.mark.xdist_group("gland_histology_segmentation")  # one worker makes what the tests share

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/gland_histology_segmentation"
BLOCKS = [*(f"down{i}" for i in range(1, 5)), "embedding", *(f"up{i}" for i in range(1, 5))]
RADIUS_PX = 10
SIZES = {"odd": (97, 101), "wide": (120, 311), "grey": (64, 95)}  # rows, columns
DISCS = {"odd": [(20, 22), (75, 80), (22, 76)], "wide": [(30, 40), (95, 290)], "grey": [(30, 40)]}
LABELS = {**DISCS, "wide": [(30, 40), (60, 150)]}  # one disc of "wide" has no label, one label no disc


def draw(name: str, centres: list[tuple[int, int]]) -> np.ndarray:
    """Discs of ids 1, 2, ..."""
    discs = np.zeros(SIZES[name], np.uint16)
    for number, centre in enumerate(centres, start=1):
        discs[disk(centre, RADIUS_PX, shape=discs.shape)] = number
    return discs


def threshold_weights() -> dict[str, torch.Tensor]:
    """U-Node whose output is positive where the image is dark: only the first skip decides, other blocks just work."""
    weights = UNode(2, 3, 2).state_dict()
    for name, value in weights.items():
        if name.startswith(("stem", "down.0.", "merge.3.", "up.3.", "head")):
            value.zero_()  # a field of zeros keeps its input
    weights["stem.weight"][0] = -1 / 3
    weights["stem.bias"][0] = -0.8  # between the greys of discs and surroundings, in standard deviations
    weights["merge.3.weight"][0, 32] = 1  # behind the 32 channels from below
    weights["head.weight"][:, 0] = 1e6  # outweighs two leaky ReLUs of slope 0.01
    return weights


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """data/ with dark discs on a bright ground, in colour and grey, and weights that find them."""
    set_determinism(0)
    folder = tmp_path_factory.mktemp("glands")
    for kind in ("images", "labels"):
        (folder / "data" / kind).mkdir(parents=True)
    for name in SIZES:
        image = Image.fromarray(np.where(draw(name, DISCS[name]) > 0, 60, 220).astype(np.uint8))
        image.convert("L" if name == "grey" else "RGB").save(folder / f"data/images/{name}.png")
        Image.fromarray(draw(name, LABELS[name])).save(folder / f"data/labels/{name}.png")
    items = {name: {"image": f"images/{name}.png", "label": f"labels/{name}.png"} for name in SIZES}
    lists = {"training": ["odd", "grey"], "validation": ["odd", "grey"], "test": [*SIZES], "testA": ["odd", "wide"]}
    dataset = json.dumps({key: [items[name] for name in names] for key, names in lists.items()})
    (folder / "data/dataset.json").write_text(dataset)
    torch.save(threshold_weights(), folder / "model.pt")
    return folder


def run(configs: str, **overrides: object) -> str:
    """`python -m monai.bundle run` in the bundle's folder; what it said on stderr."""
    files = [f"configs/{name}.json" for name in configs.split()]
    options = [f"--{key}={value}" for key, value in {"config_file": files, "device": "cpu", **overrides}.items()]
    result = commands.run("-m", "monai.bundle", "run", *options, cwd=BUNDLE)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stderr


def parse(*configs: str, **overrides: object) -> ConfigParser:
    set_determinism(0)
    parser = ConfigParser(ConfigParser.load_config_files([BUNDLE / f"configs/{name}.json" for name in configs]))
    parser.update({"bundle_root": str(BUNDLE), "device": "cpu", "amp": False, **overrides})
    return parser


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def segmented(work) -> Path:
    """The outputs of inference on the plain folder of images."""
    places = {"dataset_dir": work / "data/images", "output_dir": work / "out", "ckpt_path": work / "model.pt"}
    extras = {"save_prob": "true", "report_nfe": "true", "receptive_field": "[90, 10]"}
    assert "trained only on phantoms" not in run("inference", **places, **extras, min_size_px=50)
    return work / "out"


@pytest.mark.parametrize("name", SIZES)
def test_each_object_comes_back_to_its_place_in_the_original_image(segmented, name):
    labels, probability = (read(segmented / f"{name}_{kind}.png") for kind in ("seg", "prob"))
    assert labels.dtype == np.uint16 and labels.shape == probability.shape == SIZES[name]
    assert set(np.unique(labels)) == set(range(len(DISCS[name]) + 1))
    for found in regionprops(labels):
        assert min(np.hypot(*np.subtract(centre, found.centroid)) for centre in DISCS[name]) < 0.6
        # nearest neighbour moves the edge by less than a pixel of the coarser grid, 1.5 px
        assert abs((found.area / np.pi) ** 0.5 - RADIUS_PX) < 1
    truth = draw(name, DISCS[name]) > 0
    depth_px = ndimage.distance_transform_edt(truth) - ndimage.distance_transform_edt(~truth)
    assert (probability[depth_px > 3] >= 254).all() and (probability[depth_px < -3] == 0).all()  # 255 p, rounded down
    assert read(segmented / f"{name}_erf.png").std() > 0  # of column 90, row 10: "grey" has no row 90


def test_a_looser_tolerance_saves_evaluations_without_retraining(work, segmented, tmp_path):
    places = {"dataset_dir": work / "data/images/grey.png", "output_dir": tmp_path, "ckpt_path": work / "model.pt"}
    run("inference", **places, rtol=0.1, report_nfe="true", min_size_px=50)
    usual, loose = (json.loads((folder / "nfe.json").read_text()) for folder in (segmented, tmp_path))
    [before] = [row for row in usual["images"] if row["image"] == "grey.png"]
    [after] = loose["images"]
    assert list(before["nfe"]) == list(after["nfe"]) == BLOCKS
    assert after["num_samples"] == before["num_samples"] == dict.fromkeys(BLOCKS, 3)  # one tile, three views
    assert after["total"] < 0.9 * before["total"]
    assert np.array_equal(read(tmp_path / "grey_seg.png"), read(segmented / "grey_seg.png"))


def test_equal_steps_take_as_many_evaluations_as_asked_and_shipped_weights_say_what_they_are(work, tmp_path):
    shipped = hashlib.sha256((BUNDLE / "models/model.pt").read_bytes()).hexdigest()
    options = {"method": "rk4", "num_steps": 1, "report_nfe": "true", "phantom_sha256": shipped}
    errors = run("inference", dataset_dir=work / "data/images/grey.png", output_dir=tmp_path, **options)
    assert "note: ./models/model.pt was trained only on phantoms" in errors
    [row] = json.loads((tmp_path / "nfe.json").read_text())["images"]
    assert row["nfe"] == row["nfe_min"] == row["nfe_max"] == dict.fromkeys(BLOCKS, 4)
    assert read(tmp_path / "grey_seg.png").shape == SIZES["grey"]


def test_more_than_255_objects_survive_and_ids_are_never_mixed(tmp_path):
    Image.fromarray(np.zeros((250, 341), np.uint8)).save(tmp_path / "many.png")
    parser = parse("inference", output_dir=str(tmp_path), min_size_px=4)
    item = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "many.png")})
    dots = (np.indices(item["image"].shape[1:]) % 8 < 4).all(axis=0)
    number = ndimage.label(dots)[1]
    logits = torch.from_numpy(np.where(dots, 9.0, -9.0)).float().expand(2, -1, -1)
    parser.get_parsed_content("postprocessing")({**item, "pred": MetaTensor(logits, meta=item["image"].meta)})
    labels = read(tmp_path / "many_seg.png")
    assert labels.dtype == np.uint16 and labels.shape == (250, 341) and labels.max() == number > 255
    pieces, num_pieces = ndimage.label(labels)
    # a mixed id would be a rim of another number around a piece
    assert num_pieces == number == len(np.unique(np.stack([pieces, labels])[:, pieces > 0], axis=1).T)


def test_section_is_scored_alone_and_objects_are_pooled_over_its_images(work, segmented, tmp_path):
    places = {"dataset_dir": work / "data", "output_dir": tmp_path, "ckpt_path": work / "model.pt"}
    run("train evaluate", **places, section="testA", min_size_px=50)
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["image"] for row in scores["images"]] == ["odd.png", "wide.png"] and scores["num_images"] == 2
    pairs = [(segmented / f"{name}_seg.png", work / f"data/labels/{name}.png") for name in ("odd", "wide")]
    images = [object_statistics(read(prediction), read(truth)) for prediction, truth in pairs]
    pooled, metrics = images[0] + images[1], scores["metrics"]
    for name, field in (("f1", "f1"), ("dice", "object_dice"), ("hausdorff", "object_hausdorff")):
        assert metrics[f"val_object_{name}"] == pytest.approx(getattr(pooled, field), rel=1e-6)
        of_images = [row[f"val_object_{name}_per_image"] for row in scores["images"]]
        assert of_images == pytest.approx([getattr(image, field) for image in images], rel=1e-6)
    assert metrics["val_object_f1"] == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))  # 4 found, 1 wrong, 1 missed
    assert metrics["val_object_f1_per_image"] == pytest.approx((1 + 2 / (2 + 1 + 1)) / 2)


def erode(labels: np.ndarray, size_px: int) -> np.ndarray:
    """Object by object; the image goes on beyond its border as it ends there."""
    half, eroded = size_px // 2, np.zeros(labels.shape, bool)
    for number in np.unique(labels[labels > 0]):
        padded = np.pad(labels == number, half, mode="edge")
        eroded |= ndimage.binary_erosion(padded, np.ones((size_px, size_px)))[half:-half, half:-half]
    return eroded


@pytest.mark.parametrize(("changes", "erosion_px"), [("fit_demo", 13), ("data_nuclei", 3)])
def test_targets_are_the_augmented_objects_eroded_and_whole(tmp_path, changes, erosion_px):
    make_dataset("gland_histology_segmentation", tmp_path, training=1, validation=0, test=0, size=128)
    parser = parse("train", changes, dataset_dir=str(tmp_path))
    steps = parser.get_parsed_content("train::preprocessing").transforms
    [item] = parser.get_parsed_content("train::dataset").data
    plain, final = (Compose(part).set_random_state(3)(item) for part in (steps[:-1], steps))
    assert torch.equal(plain["image"], final["image"])
    [labels] = plain["label"].numpy()
    assert len(np.unique(labels)) > 2 and set(np.unique(labels)) <= set(np.unique(read(tmp_path / "labels/000.png")))
    eroded, whole = final["label"].numpy()
    assert np.array_equal(whole, labels > 0) and np.array_equal(eroded, erode(labels, erosion_px))
    assert 0 < eroded.sum() < whole.sum() and not (eroded > whole).any()


def test_a_crop_is_as_wide_and_high_as_a_whole_image_of_glas(tmp_path):
    """775 columns and 522 rows become 512 and 345; MONAI's first axis is the columns."""
    pixels = np.random.default_rng(0).integers(1, 256, (522, 775), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    steps = parse("train").get_parsed_content("train::preprocessing").transforms
    item = {"image": str(tmp_path / "a.png"), "label": str(tmp_path / "a.png")}
    scaled, padded, final = (Compose(steps[:stop])(item)["image"].shape[1:] for stop in (4, 5, len(steps)))
    assert scaled == (512, 345) and padded == final == (512, 352)  # a multiple of 16 that is least mirrored


@pytest.mark.slow
def test_nuclei_train_and_score_in_grey_and_colour(work, tmp_path):
    places = {"output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    parser = parse("train", "data_nuclei", dataset_dir=str(work / "data"), max_epochs=1, val_interval=1, **places)
    parser.get_parsed_content("train::trainer").run()
    assert np.isfinite(json.loads((tmp_path / "history.json").read_text())["loss"][0][1])
    places |= {"dataset_dir": str(work / "data"), "ckpt_path": str(work / "model.pt")}
    parser = parse("train", "evaluate", "data_nuclei", section="validation", **places)
    parser.get_parsed_content("validate::evaluator").run()
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    # at full resolution the threshold finds every disc to the pixel, but only without a change of scale
    assert metrics["val_object_dice"] == metrics["val_object_f1"] == 1 and metrics["val_object_hausdorff"] == 0


def test_nuclei_are_segmented_in_grey_and_colour(work, tmp_path):
    places = {"dataset_dir": work / "data/images", "output_dir": tmp_path, "ckpt_path": work / "model.pt"}
    run("inference data_nuclei", **places, tta="false")
    for name in SIZES:
        assert np.array_equal(read(tmp_path / f"{name}_seg.png") > 0, draw(name, DISCS[name]) > 0), name


@pytest.mark.parametrize("base", ["train", "inference"])
def test_overlays_put_other_networks_in_place(base):
    widths = (16, 32, 64, 128, 256)
    # a block is two 3x3 convolutions, without biases as norms of two numbers each follow
    blocks = [*zip((3, *widths), widths, strict=False), *((2 * width, width) for width in widths[:-1])]
    unet = sum(9 * (a + b) * b + 4 * b for a, b in blocks) + sum(8 * b * b + b for b in widths[:-1]) + 2 * 16 + 2
    for overlays, expected in (((), 2_087_346), (("net_uresnet",), 2_074_098), (("net_unet",), unet)):
        network = parse(base, *overlays).get_parsed_content("network")
        assert sum(p.numel() for p in network.parameters()) == expected
    network = parse(base, "net_paper_solver").get_parsed_content("network")
    blocks = [*network.down, network.embedding, *network.up]
    solvers = {(block.method, block.rtol, block.atol, block.num_steps, block.gradient) for block in blocks}
    assert len(blocks) == 9 and solvers == {("dopri5", 1e-3, 1e-3, 0, "adjoint")}


def test_the_average_over_flips_is_the_mean_of_three_views():
    parser = parse("inference")
    network, inferer, tiles = map(parser.get_parsed_content, ("network", "inferer", "tiles"))
    image = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        views = [torch.sigmoid(tiles(image.flip(axes), network)).flip(axes) for axes in ((), (-1,), (-2,))]
        average = torch.sigmoid(inferer(image, network))
    assert not torch.allclose(views[0], views[1], atol=1e-3)
    assert torch.allclose(average, torch.stack(views).mean(0), atol=1e-5)  # through a logit in float32
