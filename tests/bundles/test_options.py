"""Options of the command line that cannot work stop a run before it begins, with their names."""

from __future__ import annotations

import re

import pytest
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from bundlekit.inputs.command_line import find_misread_paths

TRAINING = {"max_epochs", "val_interval", "batch_size", "learning_rate", "num_workers", "seed", "amp", "resume"}
INFERENCE = {"num_workers", "seed", "amp", "resume"}
COUNTS = {"max_epochs", "val_interval", "batch_size", "crops_per_volume", "crops_per_image"}
CALLS = {
    "train": ["$@checks.start(@train::dataset::data, @validate::dataset::data)", "$@train::trainer.run()"],
    "inference": ["$@checks.start(@dataset::data, network=@network_def)", "$@evaluator.run()"],
}
LONGEST = 120
"""Characters of an expression: what is longer belongs into a package, where it has a test."""


def errors_of(parser: ConfigParser, capsys: pytest.CaptureFixture) -> dict[str, str]:
    """What the run says before anything else of it happens, by the file or option that it names."""
    with pytest.raises(SystemExit):
        parser.get_parsed_content("run", eval_expr=True)
    lines = [line.removeprefix("error: ") for line in capsys.readouterr().err.splitlines()]
    return {line.split(": ")[0]: line for line in lines}


def test_options_are_declared_once(config):
    """Each by the name that a command line uses, and every switch and every count is one of them."""
    parser = config.parser()
    options = parser["checks"]["options"]
    assert options.keys() >= (INFERENCE if config.base == "inference" else TRAINING)
    for name, declared in options.items():
        if name.startswith("network_def::"):  # words would count as True when the network is built
            assert declared["value"].startswith("$@network_def.") and declared["boolean"]
        else:
            assert declared["value"] == f"@{name}" and name in parser, name
    base = ConfigParser.load_config_file(config.files[0])
    switches = {name for text in expressions(parser.config) for name in re.findall(r"is_on\(@([\w:]+)\)", text)}
    assert not switches - options.keys(), f"{config}: {switches - options.keys()} would count as off if misspelt"
    missing = {name for name, value in base.items() if isinstance(value, bool) or name in COUNTS} - options.keys()
    assert not missing, f"{config}: {missing} are not among the options of the checks: declare them"


def test_a_run_is_three_calls(config):
    if config.overlay is not None and config.overlay.stem.startswith("evaluate"):
        first, *_, last = config.parser()["run"]
        assert first == "$@checks.start(@validate::dataset::data, network=@network_def)"
    else:
        first, last = CALLS["inference" if config.base == "inference" else "train"][0], config.parser()["run"][-1]
        calls = CALLS["inference" if config.base == "inference" else "train"]
        run = [call.replace(", network=@initial_network)", ")") for call in config.parser()["run"]]
        assert run == [*calls, "$@checks.finish()"]
    assert last == "$@checks.finish()"


def expressions(content) -> list[str]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [text for value in content for text in expressions(value)]
    return [content] if isinstance(content, str) and content.startswith("$") else []


def test_expressions_are_short(config):
    long = [text for text in expressions(config.parser().config) if len(text) > LONGEST or " for " in text]
    assert not long, f"{config}: {long}: write a class or function in a package"


def test_wrong_values_are_reported_together(config, tmp_path, capsys):
    parser = config.parser()
    options = parser["checks"]["options"]
    wrong = {name: "no" for name in options if "::" not in name and f"@{name}" not in str(parser["network_def"])}
    places = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path), "ckpt_path": str(tmp_path / "model.pt")}
    parser.update({**places, "device": "cpu", **wrong})
    if "pretrained_path" in parser:
        parser["pretrained_path"] = None
    found = errors_of(parser, capsys)
    assert {name: found[name].split(";")[0] for name in wrong} == {name: f"{name}: is 'no'" for name in wrong}


def test_a_seed_that_is_none_is_replaced_until_it_is_reported(config):
    assert any("seed=usable_seed(@seed)" in line for line in ensure_tuple(config.parser()["initialize"]))


def test_paths_that_were_typed_are_looked_at_before_any_is_resolved(config):
    first = [line for line in config.parser()["initialize"] if line not in ("$connect()", "$join_training(@device)")]
    assert first[0] == "$require_plain_paths()"


def test_which_options_are_paths(config):
    """Whatever the checks take for a path, and what may be None in a config may be None on the command line."""
    parser = config.parser()
    checked = ("output_dir", "save_path", "ckpt_path", "pretrained_path")
    names = {str(parser["checks"].get(name)).removeprefix("@") for name in checked} - {"None"}
    for name in {*names, "bundle_root", "dataset_dir"}:
        assert len(list(find_misread_paths([f"--{name}", "1.10"]))) == 1, name
    for name in [name for name, value in parser.config.items() if value is None]:
        assert list(find_misread_paths([f"--{name}", "None"])) == [], name


def test_every_prediction_is_looked_at(config):
    """An evaluation leaves out what is not finite; the validation of a training, without checks, ends at it."""
    parser = config.parser()
    if config.base == "inference":
        assert parser["evaluator"]["_target_"] == "bundlekit.inference.evaluator.FileEvaluator"
        return
    evaluator = parser["validate"]["evaluator"]
    assert evaluator["_target_"] == "bundlekit.inference.scoring.ScoringEvaluator"
    evaluates = config.overlay is not None and config.overlay.stem.startswith("evaluate")
    assert evaluator.get("checks") == ("@checks" if evaluates else None)
