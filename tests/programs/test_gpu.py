"""The program for a GPU: its results, limits, order, page and comparison; the rehearsal on a CPU runs every step."""

from __future__ import annotations

import json
import subprocess
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bundlekit.errors import InputError
from tests import commands
from tools.arguments import known_bundles
from tools.gpu import __main__ as program
from tools.gpu import machine, process, runner
from tools.gpu.comparison import Limit, compare_masks
from tools.gpu.graphs import EqualSteps
from tools.gpu.page import page
from tools.gpu.results import DONE, FAILED, NOT_DONE, STOPPED, Report, Results
from tools.gpu.runner import Ended, order, run_limited, run_steps
from tools.gpu.solvers import REFERENCE, check_speed
from tools.gpu.steps import STEPS, Step
from unet_ode.nets import UNode

ROOT = Path(__file__).resolve().parents[2]
SHORT = [Step("first", "none"), Step("second", "none"), Step("third", "none")]


def square(shift: int = 0, label: int = 1) -> np.ndarray:
    """A square of 10 x 10 px in 40 x 40."""
    mask = np.zeros((40, 40), np.uint8)
    mask[15:25, 15 + shift : 25 + shift] = label
    return mask


def test_differences_at_the_border_and_away_from_it_are_counted():
    shifted = compare_masks(square(), square(1))
    assert (shifted.at_border, shifted.away) == (20, 0)  # a column of 10 px on either side
    assert shifted.border == 14**2 - 6**2 and shifted.border + shifted.rest == 40**2
    lost = square()
    lost[18:22, 18:22] = 0  # 2 px and more from the border in the 4 x 4 px in the middle
    assert compare_masks(square(), lost).away == 16
    assert shifted.is_within(Limit(20 / 160, 0)) and not shifted.is_within(Limit(19 / 160, 0))
    assert not compare_masks(square(), lost).is_within(Limit(1, 15 / 1440))


def test_objects_may_be_numbered_in_another_order_but_not_joined():
    two, renumbered, joined = (
        square(-10, 1) + square(10, 2),
        square(-10, 7) + square(10, 1),
        square(-10, 1) + square(10),
    )
    assert compare_masks(two, renumbered, objects=True)[2:] == (0, 0)
    assert sum(compare_masks(two, renumbered)[2:]) == 200
    assert sum(compare_masks(two, joined, objects=True)[2:]) == 100  # one of both has no number of its own
    with pytest.raises(ValueError, match="shapes"):
        compare_masks(two, two[1:])


def test_a_command_ends_at_its_limit_with_what_it_has_started(tmp_path):
    child = f"sleep 60 & echo $! > {tmp_path}/pid; echo begun; wait"
    began = time.monotonic()
    ended = run_limited(["sh", "-c", child], 0.5, tmp_path / "log")
    assert ended.status == STOPPED and 0.4 < ended.seconds < 10 and time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{pid}/status")
    while state.exists() and "State:\tZ" not in state.read_text():
        assert time.monotonic() - began < 30  # it would sleep for a minute
        time.sleep(0.01)
    assert "begun" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("script", "status", "why"),
    [("true", DONE, ""), ("echo why; exit 3", FAILED, "exit code 3: why"), ("kill -9 $$", FAILED, "signal 9")],
)
def test_how_a_command_ended(tmp_path, script, status, why):
    ended = run_limited(["sh", "-c", script], 60, tmp_path / "log")
    assert ended.status == status and ended.why.startswith(why)


def starter(outcomes: dict[str, Ended], begun: list[str]):
    """In place of processes: a step ends as ``outcomes`` says, and has passed a check before."""

    def start(command, limit_s, log):
        name, path = command[3], Path(command[5])
        begun.append(name)
        Report(Results(path), name).check("a check", name != "second", "found")
        return outcomes.get(name, Ended(DONE, "", 1.0))

    return start


def test_one_failure_leaves_the_others_and_only_what_is_not_finished_is_repeated(tmp_path):
    begun: list[str] = []
    results = Results(tmp_path / "gpu.json")
    first = {"first": Ended(STOPPED, "after 90 s, its time limit", 90.0)}
    results = run_steps(SHORT, results, 1, [], start=starter(first, begun))
    assert begun == ["first", "second", "third"]
    problems = Results(tmp_path / "gpu.json").problems(begun)
    assert problems == ["first: stopped: after 90 s, its time limit", "second: check failed: a check: found"]
    begun.clear()
    results = run_steps(SHORT, Results(tmp_path / "gpu.json"), 1, [], start=starter({}, begun))
    assert begun == ["first", "second"] and len(results.problems(["first", "third"])) == 0
    assert "| second | done | 1 | 0 | 1 | 0 |" in (tmp_path / "gpu.md").read_text()


def test_steps_never_begun_come_before_those_that_failed(tmp_path):
    results = Results(tmp_path / "gpu.json")
    results.entry("first").update(status=FAILED)
    assert [step.name for step in order(SHORT, results)] == ["second", "third", "first"]


def test_when_the_time_is_over_no_step_begins_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LEAST_S", 3600)
    begun: list[str] = []
    results = run_steps(SHORT, Results(tmp_path / "gpu.json"), 1, [], start=starter({}, begun))
    assert begun == [] and results.problems(["first"]) == [f"first: {NOT_DONE}"]


def test_a_limit_is_never_longer_than_the_time_that_is_left(tmp_path):
    limits: list[float] = []

    def start(command, limit_s, log):
        limits.append(limit_s)
        return Ended(DONE, "", 0.0)

    run_steps([Step("first", "none", limit_s=1000)], Results(tmp_path / "gpu.json"), 0.5, [], 5, start)
    run_steps([Step("second", "none", limit_s=2)], Results(tmp_path / "gpu.json"), 0.5, [], 5, start)
    assert 29 < limits[0] <= 30 and limits[1] == 10


def test_rows_are_kept_at_once_and_not_measured_twice(tmp_path):
    path, columns = tmp_path / "gpu.json", ["name", "ms", "MiB"]
    report = Report(Results(path), "first")

    def fail():
        raise RuntimeError("out of memory\nmore")

    report.measure("t", columns, "a", lambda: [1, 2])
    report.measure("t", columns, "b", fail)
    report.measure("t", columns, "c", fail, required=False)
    again = Report(Results(path), "first")  # as it is on the disk
    again.measure("t", columns, "a", fail)
    entry = Results(path).entry("first")
    assert entry["tables"]["t"]["rows"]["a"]["cells"] == ["1", "2"]
    assert entry["tables"]["t"]["rows"]["b"]["cells"] == ["failed: RuntimeError: out of memory", "-"]
    assert list(entry["checks"]) == ["t: b"]
    again.measure("t", columns, "b", lambda: [3, 4])
    assert Results(path).entry("first")["checks"] == {}


def test_a_row_in_which_the_process_ended_is_left_out_next_time(tmp_path):
    report = Report(Results(tmp_path / "gpu.json"), "first")
    with pytest.raises(KeyboardInterrupt):
        report.measure("t", ["name", "ms"], "a", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    again = Report(Results(tmp_path / "gpu.json"), "first")
    again.measure("t", ["name", "ms"], "a", lambda: pytest.fail("measured again"))
    assert Results(tmp_path / "gpu.json").entry("first")["checks"]["t: a"]["found"] == "the process ended in it"


def test_page_says_what_it_is_of(tmp_path):
    results = Results(tmp_path / "gpu.json")
    results.content |= {"settings": {"device": "cpu", "sizes": "small"}, "machine": {"device": "CPU, 1 threads"}}
    report = Report(results, "first")
    report.needs_gpu("CUDA graphs")
    report.check("equal", True, "0 of 5")
    report.row("costs", ["name", "ms"], "a", [1.5])
    text = page(results, SHORT)
    assert text.startswith("# Run on CPU, 1 threads\n\n**A rehearsal on a CPU.**") and "`--sizes small`" in text
    assert "| CUDA graphs | not tried | needs a GPU |\n| equal | passed | 0 of 5 |" in text
    assert "costs:\n\n| name | ms |\n|---|---|\n| a | 1.5 |" in text and "## second" not in text
    results.content["settings"] = {"device": "cuda", "sizes": "full"}
    assert "rehearsal" not in page(results, SHORT)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "gpu.json").write_text("[1]")
    with pytest.raises(InputError, match=r"gpu.json: cannot be read .*; expected results of this program; choose"):
        Results(tmp_path / "gpu.json")


def test_speed_is_compared_at_no_larger_error(tmp_path):
    report = Report(Results(tmp_path / "gpu.json"), "solvers")
    errors = {REFERENCE: 1e-2, "exact": 1e-3, "coarse": 2e-2}
    for ours, passed in ((2.0, True), (3.0, False)):
        check_speed(report, {REFERENCE: 8.0, "exact": ours, "coarse": 0.1}, errors)
        [check] = Results(tmp_path / "gpu.json").entry("solvers")["checks"].values()
        assert check == {"passed": passed, "found": f"{8 / ours:.1f} times, exact"}


def test_what_is_captured_in_a_graph_is_the_block():
    network = UNode(2, 3, 2, channels=(4, 8), method="midpoint", num_steps=2).eval()
    state = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        assert torch.equal(EqualSteps(network.embedding)(state), network.embedding(state))


def test_every_bundle_has_a_step_and_names_are_unique():
    assert sorted(step.arguments[0] for step in STEPS if step.module == "bundles") == known_bundles()
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert all((ROOT / f"tools/gpu/{step.module}.py").is_file() for step in STEPS)


def test_the_first_step_from_the_command_line_to_the_page(tmp_path, monkeypatch, capsys):
    """The step runs in this process, and what it starts are forks, see `tests.commands`."""

    def start(command, limit_s, log):
        assert command[1:3] == ["-m", "tools.gpu.process"]
        process.main(command[3:])
        return Ended(DONE, "", 1.0)

    def fork(command, env, **options):
        return commands.run(*command[1:], cwd=ROOT, env=env)

    monkeypatch.setattr(program, "run_steps", partial(run_steps, start=start))
    monkeypatch.setattr(machine, "subprocess", SimpleNamespace(run=fork, PIPE=subprocess.PIPE))
    words = ["--output", str(tmp_path), "--device", "cpu", "--sizes", "small", "--steps", "machine"]
    program.main(words)
    content = json.loads((tmp_path / "gpu.json").read_text())
    verdicts = [check["passed"] for check in content["steps"]["machine"]["checks"].values()]
    assert content["machine"]["torch"] == torch.__version__ and verdicts.count(False) == 0
    assert "| machine | done |" in (tmp_path / "gpu.md").read_text()
    with pytest.raises(SystemExit, match="choose another --output"):
        program.main([*words, "--sizes", "full"])
    capsys.readouterr()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path):
    with pytest.raises(SystemExit, match=r"--device: PyTorch finds no GPU; expected a GPU; .*--device cpu"):
        program.main(["--output", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
