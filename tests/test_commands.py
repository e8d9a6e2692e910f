"""Processes forked from the server behave as processes that were started: apart, killable, with an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.commands import PRELOAD, run, run_script, start, start_ranks, wait_for

REPORT = """
import json, os, sys, torch
json.dump({"cwd": os.getcwd(), "argv": sys.argv, "environment": dict(os.environ), "name": __name__,
           "threads": torch.get_num_threads(), "group": os.getpgid(0), "pid": os.getpid()}, sys.stdout)
"""


def report(folder: Path, *arguments: object, **environment: str) -> dict:
    (folder / "report.py").write_text(REPORT)
    done = run(folder / "report.py", *arguments, cwd=folder, env={**os.environ, **environment})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def test_folder_arguments_environment_and_group_are_its_own(tmp_path):
    found = report(tmp_path, "--a", 1, ANSWER="42")
    assert found["cwd"] == str(tmp_path) and found["argv"] == [str(tmp_path / "report.py"), "--a", "1"]
    assert found["environment"]["ANSWER"] == "42" and "ANSWER" not in os.environ
    assert found["environment"].keys() == {*os.environ, "ANSWER"}
    assert found["name"] == "__main__" and found["threads"] == 1
    assert found["group"] == found["pid"] != os.getpgid(0)


def test_one_program_leaves_nothing_to_the_next(tmp_path):
    change = "import os, sys, json; os.environ['LEAK'] = json.leak = sys.leak = 'x'"
    show = "import os, sys, json; print('LEAK' in os.environ, hasattr(json, 'leak'), hasattr(sys, 'leak'))"
    assert run("-c", change, cwd=tmp_path).returncode == 0
    assert run("-c", show, cwd=tmp_path).stdout == "False False False\n"


@pytest.mark.parametrize(
    ("program", "status", "errors"),
    [
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('what is wrong')", 1, "what is wrong\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
    ],
)
def test_exit_codes_are_those_of_a_process(tmp_path, program, status, errors):
    (tmp_path / "program.py").write_text(program)
    true = subprocess.run([sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True)
    forked = run(tmp_path / "program.py")
    assert forked.returncode == true.returncode == status
    assert forked.stderr.endswith(errors) and true.stderr.endswith(errors)
    if status != -signal.SIGKILL:
        assert run_script(tmp_path / "program.py").returncode == status


def test_kill_9_ends_it_at_once_and_no_other(tmp_path):
    program = "import sys, time; open(sys.argv[1], 'w'); time.sleep(60)"
    first, second = (start("-c", program, tmp_path / name) for name in "ab")
    for name, command in (("a", first), ("b", second)):
        wait_for(tmp_path / name, command)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    assert first.returncode == -signal.SIGKILL and second.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=0.1)
    assert run("-c", "print('the server goes on')").stdout == "the server goes on\n"


def test_the_server_has_computed_nothing():
    """A thread of OpenMP or autograd would be missing in the forks, which then wait for it for ever."""
    run("-c", "")
    tasks = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/task").iterdir()
    assert len({(task / "comm").read_text().strip() for task in tasks} - {"jemalloc_bg_thd"}) == 1  # it knows of forks
    assert run("-c", f"import sys; print(*(set({PRELOAD}) - sys.modules.keys()))").stdout == "\n"


def test_what_a_fork_computes_equals_a_true_start(tmp_path):
    program = "import torch; torch.manual_seed(0); x = torch.rand(64, 64, requires_grad=True); "
    program += "(x @ x).exp().mean().backward(); print(x.grad.double().sum().item().hex())"
    true = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run("-c", program).stdout == true.stdout != ""


def test_two_ranks_find_each_other():
    program = "import torch, torch.distributed as dist; dist.init_process_group('gloo'); "
    program += "x = torch.tensor(dist.get_rank() + 1); dist.all_reduce(x); print(x.item())"
    for command in start_ranks(2, "-c", program):
        out, err = command.communicate(timeout=120)
        assert out == "3\n", err


def test_output_of_a_script_in_this_process(tmp_path, capsys):
    (tmp_path / "words.py").write_text("import sys; print(*sys.argv[1:]); print('note', file=sys.stderr)")
    before = sys.argv
    done = run_script(tmp_path / "words.py", "a", 1)
    assert (done.stdout, done.stderr, done.returncode) == ("a 1\n", "note\n", 0)
    assert sys.argv is before and capsys.readouterr() == ("", "")
