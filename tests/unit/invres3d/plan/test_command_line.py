"""The plan's table, search and command line."""

from __future__ import annotations

import re

import pytest

from invres3d.chain.engine import is_installed
from invres3d.plan import NETWORKS, Prediction, Training, format_table, largest_cube, parse_bytes, predict
from invres3d.plan.__main__ import main

SMALL = "--patch 16 16 16 --channels 8 16 --num_couplings 1 --reserve 1B"


@pytest.mark.parametrize(
    ("text", "number"),
    [("8GiB", 8 * 2**30), ("8 gb", 8 * 10**9), ("0.5KiB", 512), (".5 MB", 500_000), ("80gib", 80 * 2**30), ("1 B", 1)],
)
def test_amounts_of_memory(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["8 parsecs", "GiB", "8", "-8GiB", "0GiB", "", "8GiB free", "1e3MB"])
def test_amounts_that_are_none(text):
    with pytest.raises(ValueError, match=f"memory is '{text}'; expected a positive number .* GiB"):
        parse_bytes(text)


def test_the_leanest_comes_first_and_equality_fits():
    def prediction(engine: str, live: int) -> Prediction:
        return Prediction(Training("UNet3D", engine), live, 0, 0, 0, 0)

    lines = format_table([prediction("none", 4096), prediction("checkpoint", 2048)], 2048).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [["yes", "UNet3D", "checkpoint"], ["no", "UNet3D", "none"]]
    assert [line.split()[-1] for line in lines[1:]] == ["100%", "200%"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("start", [pytest.param(16, marks=pytest.mark.slow), 64])  # the command line starts below
def test_largest_cube_fits_and_the_next_does_not(start):
    def at(side: int) -> Prediction:
        return predict(Training("UNet3D", "none", patch=(side,) * 3, in_channels=1, channels=(8, 16)))

    memory = at(48).total_bytes
    for number, side in ((memory, 48), (memory - 1, 32)):
        assert largest_cube(at(start), number) == at(side)
    assert largest_cube(at(start), at(16).total_bytes - 1) is None


def test_command_line(capsys):
    main([*SMALL.split(), "--memory", "16MiB", "--largest"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("16 x 16 x 16 voxels, batch of 1, 4 to 4 channels, adam; 16.0 MiB")
    end = lines.index("", 2)
    rows = [line.split() for line in lines[3:end]]
    engines = [engine for engine in ("none", "checkpoint", "memcnn", "native") if is_installed(engine)]
    assert sorted(row[2] for row in rows) == sorted([*engines, *engines, "none", "checkpoint"])
    totals = [float(row[11]) for row in rows]
    assert totals == sorted(totals)
    cubes = {line.split(",")[0].strip(): line.split(": ")[1].split(",")[0] for line in lines[end + 2 :]}
    leanest = predict(Training("UNet3D", "checkpoint", patch=(16, 16, 16), channels=(8, 16)))
    found = largest_cube(leanest, 16 * 2**20)
    assert found is not None
    assert cubes["UNet3D"] == str(found.training.patch[0])
    assert list(cubes) == list(NETWORKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--memory 8parsecs", "memory is '8parsecs'; expected a positive number"),
        ("--memory 1MiB --reserve 1MiB", "expected memory above reserve: reduce --reserve"),
        ("--memory 1GiB --patch 16 16 17", r"pad to \[16, 16, 18\]"),
        ("--memory 1GiB --batch_size 0", "batch_size is 0; expected at least 1"),
        ("--memory 1GiB --channels 8", r"channels is \(8,\); expected at least two levels"),
        ("--memory 1GiB --num_couplings 0", "depth is 0; expected at least 1"),
        ("--memory 1GiB --reserve 0GiB", "reserve is '0GiB'; expected a positive number"),
        ("--memory 1GiB --patch 16000000 16000000 16000000", r"patch is \(16000000, .* expected fewer voxels"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*SMALL.split(), *arguments.split()])
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("python -m invres3d.plan: error: ")
    assert re.search(message, said)
