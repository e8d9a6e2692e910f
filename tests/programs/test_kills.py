"""Kills at random moments: what differs is found, and runs that were killed end as undisturbed ones do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from tools.kills import Case, Difference, compare_outputs, compare_trainings, kill_at_random, main, make_cases

COUNT = """
import sys, time
from pathlib import Path
folder, wrong = Path(sys.argv[1]), sys.argv[2] == "wrong"
folder.mkdir(exist_ok=True)
first = len(list(folder.iterdir()))
for i in range(first, 8):
    (folder / f"{i}").write_text(str(i + (wrong and first > 0)))
    time.sleep(0.1)
"""


def write_training(folder: Path, weight: float = 1.0, loss: float = 0.5) -> Path:
    folder.mkdir()
    torch.save({"weight": torch.tensor([weight])}, folder / "model.pt")
    torch.save({"network": {"weight": torch.tensor([1.0])}, "epoch": 1}, folder / "state.pt")
    (folder / "history.json").write_text(json.dumps({"loss": [[1, loss]]}))
    return folder


def test_trainings_are_compared_bit_for_bit(tmp_path):
    wanted = write_training(tmp_path / "wanted")
    compare_trainings(wanted, write_training(tmp_path / "same"))
    other = write_training(tmp_path / "weight", weight=1.0000001)
    with pytest.raises(Difference, match=r"model\.pt: weight differs from the undisturbed run's"):
        compare_trainings(wanted, other)
    with pytest.raises(Difference, match=r"history\.json: loss differs"):
        compare_trainings(wanted, write_training(tmp_path / "loss", loss=0.6))


def test_outputs_are_compared_byte_by_byte(tmp_path):
    for name, content in (("wanted", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(content)
    compare_outputs(tmp_path / "wanted", tmp_path / "same")
    with pytest.raises(Difference, match=r"a\.png differs"):
        compare_outputs(tmp_path / "wanted", tmp_path / "other")
    (tmp_path / "same/b.png").touch()
    with pytest.raises(Difference, match=r"holds \['a.png', 'b.png'\]; the undisturbed run wrote \['a.png'\]"):
        compare_outputs(tmp_path / "wanted", tmp_path / "same")


def test_a_run_that_goes_on_as_it_should_and_one_that_does_not(tmp_path):
    right, wrong = (Case(name, tmp_path, ["-c", COUNT, "OUT", name], compare_outputs) for name in ("right", "wrong"))
    assert kill_at_random([right], tmp_path, num_kills=4, seed=0) > 0
    with pytest.raises(Difference, match="differs"):
        kill_at_random([wrong], tmp_path, num_kills=4, seed=0)


def test_a_run_that_fails(tmp_path):
    with pytest.raises(Difference, match=f"the run ended with exit code 3, see {tmp_path}/0_undisturbed.log"):
        kill_at_random([Case("fails", tmp_path, ["-c", "exit(3)"], compare_outputs)], tmp_path, 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["nuclei_microscopy_segmentation", "hippocampus_mri_segmentation"])
def test_trainings_and_inferences_that_were_killed(tmp_path, bundle):
    assert kill_at_random(make_cases(bundle, tmp_path), tmp_path, num_kills=4, seed=3) == 4


def test_the_command_line_tells_of_a_difference(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tools.kills.make_cases", lambda *_: [Case("none", tmp_path, ["-c", "exit(2)"], compare_outputs)]
    )
    monkeypatch.setattr(sys, "argv", ["kills", "one", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*0_undisturbed: the run ended with exit code 2"):
        main()
