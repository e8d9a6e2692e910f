"""Numbers of processes from the environment, and what is refused."""

from __future__ import annotations

import pytest

from bundlekit.errors import InputError
from bundlekit.processes import connect, gather, is_connected, is_main_process, rank_and_world_size
from tests.commands import start_ranks


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        ("2", "2", "environment variable RANK: is 2; expected RANK from 0 to 1 with WORLD_SIZE 2; set both or neither"),
        (
            "1",
            None,
            "environment variable RANK: is 1; expected RANK from 0 to 0 with WORLD_SIZE 1; set both or neither",
        ),
        ("x", "2", "environment variable RANK: is 'x'; expected a non-negative integer; correct it"),
        ("0", "-1", "environment variable WORLD_SIZE: is '-1'; expected a non-negative integer; correct it"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(monkeypatch, rank, size, message):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(InputError) as error:
        rank_and_world_size()
    assert str(error.value) == message


def test_two_processes_of_a_batch_system_work_alone(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    connect()
    assert not is_connected() and rank_and_world_size() == (1, 2)
    assert is_main_process() and gather(3) == [3]


def test_a_line_is_told_beside_the_bar_of_another_process(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import torch.distributed as dist\n"
        "from tqdm import tqdm\n"
        "from bundlekit.processes import connect, disconnect, print_line, rank_and_world_size\n"
        "connect()\n"
        "rank = rank_and_world_size()[0]\n"
        "bar = tqdm(total=2, desc='images', disable=rank > 0)\n"
        "for teller in (0, 1):\n"
        "    bar.update()\n"
        "    bar.refresh()\n"
        "    dist.barrier()\n"
        "    if rank == teller:\n"
        "        print_line(f'left out: image {rank}')\n"
        "    dist.barrier()\n"
        "disconnect()\n"
    )
    ranks = start_ranks(2, script)
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    assert "images: 100%" in errors[0]  # the bar that both lines are to stay clear of
    told = [line for error in errors for line in error.splitlines() if "left out" in line]
    assert told == ["left out: image 0", "left out: image 1"]
