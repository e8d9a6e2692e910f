"""Words of a command line that Fire and MONAI take for something else than the path that was typed."""

from __future__ import annotations

import sys
from pathlib import Path

import fire
import monai.bundle.__main__
import pytest
from monai.bundle import ConfigParser

from bundlekit.errors import InputError
from bundlekit.inputs.command_line import find_misread_paths, path_of, require_plain_paths

PROGRAM = monai.bundle.__main__.__file__


def resolved(word: str):
    """What a config gets for a word, through Fire and MONAI themselves."""
    received = {}
    fire.Fire(lambda **options: received.update(options), ["--output_dir", word])
    parser = ConfigParser({"seed": 0, "rel": "other", **received})
    return parser.get_parsed_content("output_dir")


def lines(*words: str) -> list[str]:
    return [str(error) for error in find_misread_paths(["run", *words])]


PLAIN = [
    "runs", "a/b.c", "/data/2024_01_15", "./1.10", "1.1", "77", "-5", "2024-01-15", "007", "true", "null", "a b", "a-b",
    "~/out", "../x", "a@b", "a$b", "./@rel", "./$x", "./%x", "./[a]", "./None", "ünï", "C:\\x", "1e5x", "a+b",
]  # fmt: skip
MISREAD = {
    "1.10": "1.1", "2024_01_15": "20240115", "1e5": "100000.0", "0x10": "16", "1_0": "10", "None": "None",
    "True": "True", "run#3": "'run'", "[a]": "['a']", "{a}": "{'a'}", "a,b": "('a', 'b')", "(out)": "'out'",
    "out ": "'out'", "1j": "1j", "@seed": "a reference", "$1+1": "an expression", "%rel": "a macro",
    "./run#3": "'./run::3'", "/data/C#/x": "'/data/C::/x'", "": "no name",
}  # fmt: skip


@pytest.mark.parametrize("word", PLAIN)
def test_paths_that_arrive_as_they_were_typed(word):
    assert str(resolved(word)) == word
    assert lines("--output_dir", word) == []


@pytest.mark.parametrize("word", MISREAD)
def test_paths_that_arrive_as_something_else_are_named(word):
    assert word == "" or str(resolved(word)) != word or word in ("None", "True", "1j")
    [line] = lines("--output_dir", word)
    remedy = "use a name without #" if "#" in word else f"write --output_dir ./{word}"
    remedy = remedy if word else "write the path behind --output_dir"
    found = f"--output_dir {word}: is taken for {MISREAD[word]}"
    assert line == f"{found}; expected a path that is taken as it is typed; {remedy}"


@pytest.mark.parametrize("word", [word for word in MISREAD if word and "#" not in word])
def test_the_remedy_works(word):
    assert resolved(f"./{word}") == f"./{word}" and lines("--output_dir", f"./{word}") == []


@pytest.mark.parametrize(("word", "path"), [("'1.10'", "1.10"), ('"2024_01_15"', "2024_01_15"), ("'None'", "None")])
def test_quotes_of_its_own_make_text_of_a_word(word, path):
    assert resolved(word) == path and lines("--output_dir", word) == []
    assert len(lines("--output_dir", "'run#3'")) == len(lines("--output_dir", "'$x'")) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--dataset_dir=1.10"], ["--dataset_dir 1.10"]),
        (["--ckpt-path", "1.10"], ["--ckpt_path 1.10"]),
        (["--bundle_root", "1.10", "--pretrained_path", "2.0", "--seed", "1.10"], ["--bundle_root 1.10"]),
        (["--checks::output_dir", "1.10"], ["--checks::output_dir 1.10"]),
        (["--record#output_dir", "1.10"], ["--record#output_dir 1.10"]),
        (["--tracking_uri", "run#3"], ["--tracking_uri run#3"]),
        (["--output_dir", "1.10", "--output_dir", "x"], []),  # the last one counts
        (["--output_dir", "--seed", "3"], ["--output_dir"]),
        (["--output_dir"], ["--output_dir"]),
        (["--pretrained_path", "None", "--cache_dir", "None"], []),
        (["--ckpt_path", "None"], ["--ckpt_path None"]),
        (["--config_file", "['a.json','b.json']", "--patch_size", "[8,8]", "--threshold", "0.50"], []),
    ],
)
def test_which_options_are_paths(words, named):
    assert [line.split(": ")[0] for line in lines(*words)] == named


def test_only_runs_of_bundles_are_ended(monkeypatch, stop):
    typed = ["run", "--output_dir", "1.10", "--dataset_dir", "@x"]
    monkeypatch.setattr(sys, "argv", ["train_many.py", *typed])  # that calls MONAI from Python with paths of its own
    require_plain_paths()
    monkeypatch.setattr(sys, "argv", [PROGRAM, "run", "--output_dir", "./1.10"])
    require_plain_paths()
    monkeypatch.setattr(sys, "argv", [PROGRAM, *typed])
    assert [line.split(": is")[0] for line in stop(require_plain_paths)] == [
        "error: --output_dir 1.10",
        "error: --dataset_dir @x",
    ]


@pytest.mark.parametrize("value", [1.1, None, True, ["a"], {"a": 1}, b"a"])
def test_values_of_a_config_that_are_no_paths(value):
    with pytest.raises(InputError) as caught:
        path_of(value)
    remedy = "expected a path; write it in quotes in the config"
    assert str(caught.value) == f"{value}: is of type {type(value).__name__}; {remedy}"


def test_values_of_a_config_that_are_paths(monkeypatch, tmp_path):
    for value in ("1.10", "a", Path("a/b"), 77, ""):
        assert path_of(value) == str(value)
    monkeypatch.setattr(sys, "argv", [PROGRAM, "run", "--output_dir", "1.1"])
    assert path_of(1.1) == "1.1"
    with pytest.raises(InputError, match="run::3: has ::, which MONAI puts in the place of #; expected a path"):
        path_of(f"{tmp_path}/run::3")
    (tmp_path / "run::3").mkdir()
    assert path_of(f"{tmp_path}/run::3") == f"{tmp_path}/run::3"
