"""A run's checks as a config makes them: what is kept, what is said on stderr, and the exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundlekit.inputs import checks as checks_module
from bundlekit.inputs.checks import RunChecks

RULES = {"spatial_dims": 2, "channels": 1, "label_values": [0, 1]}


def test_all_good_says_nothing(make_pairs, tmp_path, capsys):
    checks = RunChecks(**RULES, ckpt_path=tmp_path / "model.pt", output_dir=tmp_path / "out")
    items = checks.section(make_pairs(tmp_path / "data"), "training")
    assert items == [{key: f"{tmp_path}/data/{key}s/good{i}.png" for key in ("image", "label")} for i in range(2)]
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    checks.start(items, network=torch.nn.Linear(2, 3))
    checks.finish()
    assert (tmp_path / "out").is_dir()
    assert capsys.readouterr().err == ""


def test_bad_files_are_left_out_and_named_twice(make_pairs, stop, tmp_path, capsys):
    checks = RunChecks(**RULES)
    items = checks.section(make_pairs(tmp_path, "bad.png"), "training")
    assert [Path(item["image"]).name for item in items] == ["good0.png", "good1.png"]
    assert checks.section(tmp_path, "training") == items
    checks.start(items)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"left out: {tmp_path}/images/bad.png: cannot be read as an image (truncated or not an image"
    )
    assert stop(checks.finish) == [line]


def test_labels_are_checked_for_training_only(make_pairs, stop, tmp_path):
    folder = make_pairs(tmp_path)
    label = f"{tmp_path}/labels/good1.png"
    Image.fromarray(255 * np.eye(32, dtype=np.uint8)).save(label)
    checks = RunChecks(**RULES)
    assert [Path(item["image"]).name for item in checks.images(folder)] == ["good0.png", "good1.png"]
    assert [Path(item["image"]).name for item in checks.section(folder, "training")] == ["good0.png"]
    [line] = stop(checks.finish)
    assert line.startswith(
        f"left out: {label}: holds other labels: 255 (32x); 32 of 1024 values, first at index (0, 0); "
    )


def test_nothing_usable_is_an_error(make_pairs, stop, tmp_path):
    checks = RunChecks(**RULES)
    items = checks.section(make_pairs(tmp_path, "a.png", "b.png", good=0), "training")
    assert items == []
    first, second, error = stop(lambda: checks.start(items))
    assert first.startswith(f"left out: {tmp_path}/images/a.png: ")
    assert second.startswith(f"left out: {tmp_path}/images/b.png: ")
    assert error == (
        f"error: {tmp_path}/dataset.json, list 'training': none of 2 can be used; expected at least one; "
        "correct the files that were left out"
    )


def test_all_errors_come_at_once_and_each_one_once(stop, tmp_path):
    places = {"ckpt_path": tmp_path / "model.pt", "output_dir": tmp_path / "file" / "out"}
    checks = RunChecks(**RULES, **places)
    lists = [checks.section(tmp_path / "gone", name) for name in ("training", "validation")]
    (tmp_path / "file").touch()
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    network = torch.nn.Linear(2, 4)
    lines = stop(lambda: checks.start(*lists, network=network))
    assert [line.split("; ")[0] for line in lines] == [
        f"error: {tmp_path}/gone: is not a folder",
        f"error: {tmp_path}/file/out: cannot be created or written (Not a directory)",
        f"error: {tmp_path}/model.pt: tensors do not match: 2 of other shape "
        "(first weight: (3, 2) in the file, (4, 2) in the network)",
    ]


def test_lists_from_elsewhere(stop, tmp_path, capsys):
    checks = RunChecks(**RULES)
    checks.start([{"image": "anything"}])
    checks.finish()
    assert capsys.readouterr().err == ""
    assert stop(lambda: checks.start([{"image": "anything"}], [])) == [
        "error: data list 2 of 2: is empty; expected at least one entry; "
        "correct --dataset_dir or the list that was passed"
    ]


def test_segmentations_go_to_another_folder_than_the_images(make_pairs, stop, tmp_path):
    folder = make_pairs(tmp_path) / "images"
    checks = RunChecks(**RULES, output_dir=folder)
    items, pairs = checks.images(folder), checks.section(tmp_path, "training")
    assert stop(lambda: checks.start(pairs, items)) == [
        f"error: {folder}: is both input and output folder (it holds {folder}/good0.png); expected another folder; "
        "pass another --output_dir"
    ]
    checks.start(pairs)
    checks.output_dir = folder / "out"
    checks.start(items)


def test_inputs_of_inference(stop, tmp_path):
    checks = RunChecks(**RULES)
    for name in ("b.png", "a.bmp"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "c.png").mkdir()
    (tmp_path / "d.tif").write_text("text")
    items = checks.images(tmp_path)
    assert items == [{"image": f"{tmp_path}/a.bmp"}, {"image": f"{tmp_path}/b.png"}]
    folder, text = stop(checks.finish)
    assert folder.startswith(f"left out: {tmp_path}/c.png: cannot be opened (Is a directory)")
    assert text.startswith(f"left out: {tmp_path}/d.tif: cannot be read as an image")


def test_inputs_with_one_output_name(stop, tmp_path):
    for name in ("a.bmp", "a.png"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "a.tif").write_text("left out, so that it replaces nothing")
    checks = RunChecks(**RULES)
    items = checks.images(tmp_path)
    *_, error = stop(lambda: checks.start(items))
    assert error.startswith(f"error: {tmp_path}/a.png: has the same output name as {tmp_path}/a.bmp; ")
    assert "a.tif" not in error


@pytest.mark.parametrize(("num_images", "bar"), [(50, False), (51, True)])
def test_a_progress_bar_for_long_lists_only(tmp_path, capsys, num_images, bar):
    for i in range(num_images):
        Image.new("L", (2, 2)).save(tmp_path / f"{i}.png")
    assert len(RunChecks(**RULES).images(tmp_path)) == num_images
    assert (f"checking {tmp_path}: 100%" in capsys.readouterr().err) is bar


@pytest.mark.parametrize("dataset_dir", ["", "/nowhere", 2012, None, "nul\0"])
def test_a_config_can_be_read_without_its_data(stop, dataset_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parser = ConfigParser(
        {
            "dataset_dir": dataset_dir,
            "checks": {"_target_": "bundlekit.inputs.checks.RunChecks", **RULES},
            "training": "$@checks.section(@dataset_dir, 'training')",
            "inputs": "$@checks.images(@dataset_dir)",
        }
    )
    assert parser.get_parsed_content("training") == parser.get_parsed_content("inputs") == []
    lines = stop(lambda: parser.get_parsed_content("checks").start([], []))
    assert lines and all(line.startswith("error: ") for line in lines)


class CountingPath(str):
    """A path that counts how often it is compared, whatever asks."""

    num_compared = 0

    def __eq__(self, other: object) -> bool:
        CountingPath.num_compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_work_for_many_images_grows_with_their_number(tmp_path, monkeypatch):
    """Twice as many images, all of them wrong, are twice as many comparisons of paths and of lines, not four times."""
    counts = {}
    for number in (50, 100, 200):
        folder = tmp_path / str(number)
        folder.mkdir()
        items = [{"image": CountingPath(folder / f"{i}.png")} for i in range(number)]
        with monkeypatch.context() as patch:
            patch.setattr(checks_module, "find_images", lambda *args, found=items: found)
            patch.setattr(checks_module, "str", lambda error: CountingPath(f"{error}"), raising=False)
            checks = RunChecks(**RULES)
            CountingPath.num_compared = 0
            assert checks.images(folder) == []
            assert len(checks._left_out) == number
            counts[number] = CountingPath.num_compared
    assert counts[200] <= 2 * counts[100] + 1 <= 4 * counts[50] + 3, counts
