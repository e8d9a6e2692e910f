"""The folder of a prepare_data.py: whole or without a list, and all errors reported at once."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import pytest

from bundlekit.prepare.layout import open_layout, run_preparation, save_pair


def fill(output, names) -> dict[str, list]:
    with open_layout(output, {"name": "squares"}) as lists:
        for i, name in enumerate(names):
            if name == "bad":
                raise ValueError("first line\nsecond line")
            lists["training"].append(save_pair(output, name, np.full((4, 4), i, np.uint8), np.eye(4, dtype=np.uint16)))
    return lists


def test_a_run_cut_short_leaves_no_list_and_the_next_one_mends_it(tmp_path):
    fill(tmp_path, ["a"])
    with pytest.raises(ValueError):
        fill(tmp_path, ["a", "bad"])
    assert not list(tmp_path.glob("dataset.json*"))
    fill(tmp_path, ["a", "b"])
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content == {
        "name": "squares",
        "training": [{"image": f"images/{name}.png", "label": f"labels/{name}.png"} for name in "ab"],
    }


@pytest.mark.parametrize("name, code", [("good", 0), ("bad", 1)])
def test_the_command_line_counts_or_tells_every_line(tmp_path, monkeypatch, capsys, name, code):
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    command = ["prepare_data.py", "--source", "x", "--output", str(tmp_path), "--name", name]
    monkeypatch.setattr(sys, "argv", command)
    assert run_preparation(parser, lambda args: fill(args.output, [args.name])) == code
    out, err = capsys.readouterr()
    if code:
        assert out == "" and err == "error: first line\nerror: second line\n"
    else:
        assert out == f"{tmp_path}: 1 training, 0 validation, 0 test\n" and err == ""
