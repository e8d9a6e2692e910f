"""Numbers of the command line that cannot work stop a run before it begins, with their names."""

from __future__ import annotations

import pytest
from monai.bundle import ConfigParser

POSITIVE = ("max_epochs", "val_interval", "batch_size", "crops_per_volume", "crops_per_image", "learning_rate")


def first_error(parser: ConfigParser, option: str, capsys: pytest.CaptureFixture) -> str:
    """What the run says of an option before anything else of it happens."""
    with pytest.raises(SystemExit):
        parser.get_parsed_content("run", eval_expr=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"error: {option}: ")]
    assert len(lines) == 1
    return lines[0]


def test_numbers_of_a_training(config, tmp_path, capsys):
    if config.base == "inference":
        pytest.skip("no training")
    if config.overlay is not None and config.overlay.stem in ("evaluate", "evaluate_pretrain"):
        pytest.skip("no training")
    names = [name for name in POSITIVE if name in config.parser().config]
    assert {"max_epochs", "val_interval", "batch_size", "learning_rate"} <= set(names)
    for name in names:
        parser = config.parser()
        parser.update({"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "device": "cpu", name: -1})
        kind = "number above 0" if name == "learning_rate" else "whole number from 1 up"
        assert first_error(parser, name, capsys) == f"error: {name}: is -1; expected a {kind}; pass one with --{name}"


def test_seed(config, tmp_path, capsys):
    parser = config.parser()
    places = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    parser.update({**places, "device": "cpu", "seed": "abc"})
    assert parser.get_parsed_content("checks").seed("abc") == 0
    assert any("@checks.seed(@seed)" in line for line in parser["initialize"])
    line = first_error(parser, "seed", capsys)
    assert line == "error: seed: is 'abc'; expected a whole number from 0 to 4294967295; pass one with --seed"
