"""The table over seeds, and fields put together from tiles, against values worked out by hand."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundlekit.phantoms import make_dataset

PATH = Path(__file__).resolve().parents[2] / "studies/nuclei.py"
DOCS = PATH.parents[1] / "bundles/nuclei_microscopy_segmentation/docs"
SPEC = importlib.util.spec_from_file_location("nuclei_evidence", PATH)
evidence = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(evidence)


def row(variant: str, seed: int, images: str, value: float) -> dict[str, str]:
    key = dict(zip(evidence.KEY, (variant, str(seed), "40", "{}", images), strict=True))
    return {**key, **dict.fromkeys(evidence.METRICS, f"{value:.5f}")}


def test_table_has_means_and_deviations_over_seeds():
    rows = [row("dice_loss", seed, "test", value) for seed, value in enumerate((0.5, 0.7, 0.9))]
    rows += [row("cosine", 0, "test_rgb", 0.25), row("cosine", 0, "test", 0.75)]
    lines = evidence.table_of_seeds(rows, ["pixel_f1"]).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # mean 2.1 / 3 = 0.7, squares 0.04 + 0 + 0.04, over n - 1 = 2 the root of 0.04
    assert [line[:4] for line in cells] == [
        ["cosine", "test", "1", "0.750"],
        ["dice_loss", "test", "3", "0.700 ± 0.200"],
        ["cosine", "test_rgb", "1", "0.250"],
    ]


def page_cells(epochs: str, images: str, columns: tuple[str, ...]) -> dict[str, str]:
    """Of scores.csv, by variant, as a row of the bundle's pages shows them."""
    with (DOCS / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["epochs"], row["images"]) == (epochs, images)]
    lines = [line.strip("| ").split(" | ") for line in evidence.table_of_seeds(rows, columns).splitlines()[2:]]
    return {variant: " | ".join(cells) for variant, _, _, *cells in lines}


def test_tables_of_the_pages_agree_with_the_scores():
    page, text = ((DOCS / name).read_text() for name in ("README.md", "evidence.md"))
    shown = [
        cells
        for epochs, images in [
            ("12", "test"),
            ("40", "test"),
            ("100", "test"),
            ("100", "test_grey"),
            ("100", "test_rgb"),
        ]
        for cells in page_cells(epochs, images, evidence.TABLES[0]).values()
    ]
    grey, colours = (
        page_cells("12", images, ("pixel_f1", "dice", "object_f1_50", "map")) for images in ("test_grey", "test_rgb")
    )
    shown += [f"{grey[variant]} | {colours[variant]}" for variant in evidence.VARIANTS]
    assert len(shown) == 5 + 5 + 3 + 5
    assert [cells for cells in shown if f" | {cells} |\n" not in text] == []
    shipped = [page_cells("100", images, evidence.TABLES[0]) for images in ("test", "test_grey", "test_rgb")]
    rows = [cells for variants in shipped for cells in variants.values()]
    assert len(rows) == 3 and [cells for cells in rows if f" | {cells} |\n" not in page] == []


def test_both_lists_train_together(tmp_path):
    items = {
        name: [{"image": f"images/{name}.png", "label": f"labels/{name}.png"}] for name in ("training", "validation")
    }
    (tmp_path / "dataset.json").write_text(json.dumps({**items, "test": []}))
    folder = evidence.with_both_lists(tmp_path, tmp_path / "run/data")
    lists = json.loads((folder / "dataset.json").read_text())
    first, second = ({key: f"{tmp_path}/{key}s/{name}.png" for key in ("image", "label")} for name in items)
    assert lists == {"training": [first, second], "validation": [second]}


def test_tiles_are_put_together_in_order_with_numbers_of_their_own():
    tile = np.array([[1, 0], [0, 2]], np.uint16)
    places = [(1, 0, 2 * tile), (0, 1, tile), (0, 0, tile), (1, 1, 0 * tile)]
    assert evidence.stitch(places).tolist() == [
        [1, 0, 3, 0],
        [0, 2, 0, 4],
        [6, 0, 0, 0],
        [0, 8, 0, 0],
    ]


def test_scores_worked_out_by_hand():
    truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    prediction = np.array([[0, 7, 7, 7, 0, 0, 0]])
    # 3 shared pixels of 3 and 6; overlap 3 / 4, which is above 0.5 and not above 0.75
    assert evidence.scores_of_field(prediction, truth) == pytest.approx([2 * 3 / 9, 2 / 3, 0])


def test_a_field_as_a_whole_and_tile_by_tile(tmp_path, monkeypatch):
    """A network that finds every nucleus: tile by tile, the one across the tiles' border comes out as two."""
    truth = np.zeros((6, 12), np.uint16)
    truth[1:3, 1:4], truth[3:5, 4:7] = 1, 2  # 6 px, and 6 px of which 4 lie in the left tile
    (tmp_path / "images").mkdir()
    Image.fromarray(truth).save(tmp_path / "images/truth.png")
    items = [{"image": "images/group7.png", "label": "images/truth.png"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"mosaics": items}))
    (tmp_path / "split.csv").write_text("id,group,tile_row,tile_col\nb,7,0,1\nother,8,0,0\na,7,0,0\n")
    found = {"group7": truth, "a": truth[:, :6], "b": truth[:, 6:]}
    calls = []

    def segment(images, run, output, overlays):
        calls.append(output.name)
        output.mkdir(exist_ok=True)
        for name in ["group7"] if images.suffix else ["a", "b"]:
            Image.fromarray(found[name]).save(output / f"{name}_instances.png")

    monkeypatch.setattr(evidence, "segment", segment)
    lines = evidence.table_of_fields(tmp_path, tmp_path, tmp_path, []).splitlines()[2:]
    # above 0.5 two of three match two of two, 4 / 5; above 0.75 the overlap of 4 / 6 does not: one, 2 / 5
    assert lines == [
        "| group7 | whole | 1.000 | 1.000 | 1.000 | 2 of 2 |",
        "| group7 | tile by tile | 1.000 | 0.800 | 0.400 | 3 of 2 |",
    ]
    assert evidence.table_of_fields(tmp_path, tmp_path, tmp_path, []).splitlines()[2:] == lines and calls == [
        "tiles",
        "whole",
    ]
    (tmp_path / "tiles/b_instances.png").unlink()  # as after a kill
    evidence.table_of_fields(tmp_path, tmp_path, tmp_path, [])
    assert calls == ["tiles", "whole", "tiles"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[1]", "expected a JSON object"),
        ('{"amp": true, "section": "test"}', "has amp, section, which this program sets; leave it out"),
    ],
)
def test_options_that_cannot_be_passed_on(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        evidence.read_options(text)
    assert evidence.read_options('{"crop_size": [64, 64]}') == {"crop_size": [64, 64]}


def test_a_folder_of_runs_is_of_the_same_options(tmp_path):
    for options in ({"amp": "true", "a": 1}, {"a": 1, "amp": "true"}):
        evidence.claim(tmp_path / "runs", options)
    with pytest.raises(SystemExit, match=r'options.json: has {"a": 1, "amp": "true"}; expected {"amp": "true"}'):
        evidence.claim(tmp_path / "runs", {"amp": "true"})


@pytest.mark.slow
def test_a_run_is_trained_and_scored_with_its_options(tmp_path):
    make_dataset(evidence.BUNDLE.name, tmp_path / "data", training=2, validation=1, test=2, size=64)
    path = tmp_path / "data/dataset.json"
    dataset = json.loads(path.read_text())
    path.write_text(json.dumps({**dataset, "test_grey": dataset["test"][:1], "test_rgb": dataset["test"][1:]}))
    options = {"amp": "true", "patch_size": [64, 64], "crop_size": [64, 64], "tiles#margin": 32}
    args = argparse.Namespace(max_epochs=1, val_interval=1, num_workers=None, options=options)
    rows = evidence.train_and_score(tmp_path / "data", tmp_path / "run", "cyclic", 3, args)
    assert [row["images"] for row in rows] == list(evidence.SECTIONS)
    assert {tuple(row[name] for name in evidence.KEY[:4]) for row in rows} == {
        ("cyclic", "3", "1", evidence.as_key(options))
    }
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in evidence.METRICS)
    again = evidence.train_and_score(tmp_path / "data", tmp_path / "run", "cyclic", 3, args)  # nothing is run
    assert again == rows
