"""One training at a time in a folder: what a second one is refused with, and what a kill leaves behind."""

import json
import os
import re
import signal
import socket
import time

import pytest

from bundlekit.errors import InputError
from bundlekit.training import lock
from bundlekit.training.lock import LAPSE_S, LOCK_NAME, lock_folder, lock_weights, unlock_folder, unlock_weights
from tests import commands

HOLD = """
import os, sys, time
from bundlekit.training.lock import lock_folder, lock_weights
lock_folder(sys.argv[1])
lock_weights(sys.argv[1] + "/model.pt")
if os.fork() == 0:  # as a worker of a data loader does
    time.sleep(2)
    os._exit(0)
open(sys.argv[1] + "/ready", "w").close()
time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    command = commands.start("-c", HOLD, tmp_path, cwd=tmp_path)
    commands.wait_for(tmp_path / "ready", command)
    yield command
    command.send_signal(signal.SIGKILL)
    command.communicate()


def test_a_second_process_is_refused_until_the_first_one_is_killed(holder, tmp_path):
    for _ in range(2):  # a refusal does not break the lock
        with pytest.raises(InputError) as error:
            lock_folder(tmp_path)
        assert str(error.value) == (
            f"{tmp_path}: process {holder.pid} on {socket.gethostname()} trains here; expected a folder for each "
            "training; wait until it has ended, or pass another --output_dir"
        )
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError) as error:
        lock_weights(tmp_path / "link/model.pt")
    assert str(error.value) == (
        f"{tmp_path}/model.pt: process {holder.pid} on {socket.gethostname()} writes its best weights here; expected a "
        "file for each training; wait until it has ended, or pass another --ckpt_path"
    )
    lock_weights(tmp_path / "other.pt")
    unlock_weights(tmp_path / "other.pt")
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    lock_weights(tmp_path / "model.pt")
    unlock_weights(tmp_path / "model.pt")
    left = lock_folder(tmp_path)  # at once, though a process that the first one has forked is still there
    assert left == {"pid": holder.pid, "parent": left["parent"], "host": socket.gethostname()}
    assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    unlock_folder(tmp_path)
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_process_may_lock_again_and_unlock_what_it_has_not_locked(tmp_path):
    unlock_folder(tmp_path)
    assert lock_folder(tmp_path) == lock_folder(str(tmp_path)) == {}
    unlock_folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", '{"pid": 1', "[]", json.dumps({"pid": 1, "host": socket.gethostname()})])
def test_a_file_that_nobody_holds(tmp_path, content):
    """Whatever process has the number now."""
    (tmp_path / LOCK_NAME).write_text(content)
    lock_folder(tmp_path)
    unlock_folder(tmp_path)


def test_a_training_on_another_machine_is_alive_as_long_as_it_changes_the_file(tmp_path):
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps({"pid": 1, "parent": 1, "host": "elsewhere"}))
    with pytest.raises(
        InputError, match=f"process 1 on elsewhere trains here; .*; wait until it has ended, {LAPSE_S} s"
    ):
        lock_folder(tmp_path)
    os.utime(path, (time.time() - LAPSE_S - 1,) * 2)
    assert lock_folder(tmp_path)["host"] == "elsewhere"
    unlock_folder(tmp_path)


def test_a_lock_of_another_machine_with_a_time_in_the_future(tmp_path):
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps({"pid": 1, "parent": 1, "host": "elsewhere"}))
    os.utime(path, (time.time() + 5000,) * 2)
    with pytest.raises(InputError) as error:
        lock_folder(tmp_path)
    found = re.fullmatch(
        f"{path}: of process 1 on elsewhere, has a time (\\d+) s in the future; expected one of the past; remove it if "
        "no training runs there, or pass another --output_dir",
        str(error.value),
    )
    assert found and 4900 < int(found[1]) <= 5000
    path.unlink()  # the remedy
    lock_folder(tmp_path)
    unlock_folder(tmp_path)


@pytest.mark.parametrize("lock_one", [lock_folder, lambda folder: lock_weights(folder / "model.pt")])
@pytest.mark.parametrize(
    ("make", "reason"),
    [(os.mkdir, "Is a directory"), (lambda path: os.symlink(path, path), "Too many levels of symbolic links")],
)
def test_a_lock_that_cannot_be_opened(tmp_path, lock_one, make, reason):
    names = LOCK_NAME, ".training.model.pt.lock"
    for name in names:
        make(tmp_path / name)
    with pytest.raises(InputError) as error:
        lock_one(tmp_path)
    name, option = (names[0], "output_dir") if lock_one is lock_folder else (names[1], "ckpt_path")
    assert str(error.value) == (
        f"{tmp_path / name}: cannot be opened ({reason}); expected a file that a training locks; remove it if no "
        f"training runs there, or pass another --{option}"
    )


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "lockf", fail)
    lock_folder(tmp_path)
    unlock_folder(tmp_path)
    (tmp_path / LOCK_NAME).write_text(json.dumps({"pid": 1, "host": socket.gethostname()}))
    with pytest.raises(InputError, match="process 1 on "):
        lock_folder(tmp_path)


def test_the_file_is_changed_while_the_lock_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    lock_folder(tmp_path)
    os.utime(tmp_path / LOCK_NAME, (0, 0))
    deadline = time.monotonic() + 60
    while (tmp_path / LOCK_NAME).stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    unlock_folder(tmp_path)
