"""The search for the parameters of the closing, on phantoms."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import load_decathlon_datalist
from PIL import Image

from bundlekit.phantoms import make_dataset

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/membrane_em_segmentation"


def run_study(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["membranes", *map(str, words)])
    runpy.run_module("studies.membranes", run_name="__main__")


@torch.no_grad()
def error_of_threshold(network: torch.nn.Module, parser: ConfigParser, items: list[dict], threshold: float) -> float:
    """Share of wrong pixels of all slices where a pixel is membrane if p > threshold."""
    wrong = []
    for item in items:
        image = parser.get_parsed_content("preprocessing")({"image": item["image"]})["image"].as_tensor()
        # 32 px of mirrored context on each side, as overlap tiles see it
        logits = network(torch.nn.functional.pad(image[None], [32] * 4, mode="reflect"))[0, :, 32:-32, 32:-32]
        probability = torch.sigmoid(logits[1] - logits[0]).numpy()
        truth = np.asarray(Image.open(item["label"])).astype(bool).T  # MONAI's first axis is the columns
        wrong.append((probability > threshold) != truth)
    return float(np.mean(wrong))


def test_the_search_on_a_small_grid(tmp_path, monkeypatch, capsys):
    make_dataset("membrane_em_segmentation", tmp_path, training=0, validation=2, test=0, size=64)
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs/inference.json"))
    network = parser.get_parsed_content("network_def").eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    options = ("--dataset_dir", tmp_path, "--ckpt_path", tmp_path / "model.pt", "--device", "cpu")
    # no basin is as deep as 1, so that the closing finds one region and only the threshold decides
    grid = ("--threshold", 0.5, "--sigma_px", 2, "--depth", 0.001, 1, "--merge_below", 0.65)
    run_study(monkeypatch, *options, *grid)
    rows = [[float(word) for word in line.split()] for line in capsys.readouterr().out.splitlines()[1:]]
    assert sorted(row[3:] for row in rows) == [[0.5, 2, 0.001, 0.65], [0.5, 2, 1, 0.65]]
    [pixel] = [row[1] for row in rows if row[5] == 1]
    items = load_decathlon_datalist(tmp_path / "dataset.json", data_list_key="validation")
    expected = error_of_threshold(network, parser, items, 0.5)
    # four digits are printed; one pixel of the 2 x 64 x 64 is 0.00012
    assert abs(pixel - expected) < 0.6e-4
    assert all(abs(row[0] - (row[1] + row[2]) / 2) <= 1.1e-4 for row in rows) and rows[0][0] <= rows[1][0]


def test_what_is_missing_is_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run_study(monkeypatch, "--dataset_dir", tmp_path / "no", "--ckpt_path", tmp_path / "no.pt")
    data, weights = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1
    assert "no: is not a folder" in data and "no.pt: cannot be opened" in weights
