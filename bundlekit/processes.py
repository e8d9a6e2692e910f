"""The processes of one run, as torchrun or a batch system starts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from tqdm import tqdm

from .errors import InputError

__all__ = [
    "StoppedRun",
    "connect",
    "disconnect",
    "from_main_process",
    "gather",
    "is_connected",
    "is_main_process",
    "join_training",
    "may_be_restarted",
    "pick_device",
    "print_line",
    "raise_again",
    "rank_and_world_size",
    "stop_run",
    "was_restarted",
]

_T = TypeVar("_T")
_LONGEST = timedelta(days=30)  # that processes wait for each other at the end: one may have all of the large images


def _read_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"environment variable {name}", f"is {text!r}", "a non-negative integer", "correct it")
    return int(text)


def is_connected() -> bool:
    """Whether this process belongs to a group whose processes can wait for each other."""
    return dist.is_available() and dist.is_initialized()


def rank_and_world_size() -> tuple[int, int]:
    """This process's number, from 0 up, and how many processes there are.

    They are taken from the process group, or else from the environment variables RANK and WORLD_SIZE.

    Raises:
        InputError: where the variables are no numbers, or do not fit each other.

    Example:
        >>> rank_and_world_size()
        (0, 1)
    """
    if is_connected():
        return dist.get_rank(), dist.get_world_size()
    number, count = _read_number("RANK", 0), _read_number("WORLD_SIZE", 1)
    if number >= count:
        expected = f"RANK from 0 to {count - 1} with WORLD_SIZE {count}"
        raise InputError("environment variable RANK", f"is {number}", expected, "set both or neither")
    return number, count


def is_main_process() -> bool:
    """Whether this process reports for all that it is connected with: it is the first one, or not connected."""
    return not is_connected() or dist.get_rank() == 0


def print_line(text: str) -> None:
    """Write a line to stderr during the run, on a line of its own whatever bar this or the first process shows."""
    own_line = text if is_main_process() else f"\n{text}"  # tqdm knows the bars of its own process only
    tqdm.write(own_line, file=sys.stderr)


def pick_device() -> str:
    """The GPU that torchrun has numbered for this process, the first one where there is one process, or cpu.

    Example:
        >>> pick_device().split(":")[0] in ("cuda", "cpu")
        True
    """
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{_read_number('LOCAL_RANK', 0) % torch.cuda.device_count()}"


def _join(backend: str, timeout: timedelta | None) -> None:
    """Join the process group, apart from what the processes of before a restart have left in torchrun's store.

    torchrun keeps the store when it restarts processes, and with it the addresses of those that are gone.
    """
    number, count = rank_and_world_size()
    store, *_ = next(dist.rendezvous("env://", number, count))
    restarts = _read_number("TORCHELASTIC_RESTART_COUNT", 0)
    own = dist.PrefixStore(f"restart_{restarts}", store)
    dist.init_process_group(backend, store=own, rank=number, world_size=count, timeout=timeout)


def connect() -> None:
    """Join the process group that torchrun has prepared, so that all processes end together; else do nothing.

    Processes that were given RANK and WORLD_SIZE but no MASTER_ADDR share the files and know nothing of each other.
    """
    several = _read_number("WORLD_SIZE", 1) > 1 and "MASTER_ADDR" in os.environ
    if several and not is_connected():
        _join("gloo", _LONGEST)


def join_training(device: str | torch.device) -> None:
    """Join the process group that torchrun has prepared for a training: nccl where the device is a GPU, else gloo.

    Args:
        device: device of this process, see :func:`pick_device`.
    """
    on_gpu = torch.device(device).type == "cuda"
    _join("nccl" if on_gpu else "gloo", None)
    if on_gpu:
        torch.cuda.set_device(device)


@cache
def _patient_group(world: Any) -> Any:
    """All processes, connected in a way that lets them wait for hours, as those of a training usually may not."""
    return dist.new_group(backend="gloo", timeout=_LONGEST)


def from_main_process(find: Callable[[], _T]) -> _T:
    """What ``find`` returns in the first of the processes that are connected, which only that one calls.

    Args:
        find: returns anything that pickle can write.

    Example:
        >>> from_main_process(lambda: 3)
        3
    """
    if not is_connected():
        return find()
    group = _patient_group(dist.group.WORLD)
    values = [find() if is_main_process() else None]
    dist.broadcast_object_list(values, src=0, group=group)
    return values[0]  # type: ignore[return-value]


def gather(value: _T) -> list[_T]:
    """The values of all processes that are connected, in their order; each process waits for the last one.

    Args:
        value: anything that pickle can write.

    Example:
        >>> gather({"images": 3})
        [{'images': 3}]
    """
    if not is_connected():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_patient_group(dist.group.WORLD))
    return values


class StoppedRun(SystemExit):
    """Ends the process with exit code 1; the reason, its text, has been printed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1  # Python prints a text that is the code


def stop_run(reason: str) -> NoReturn:
    """Print why the run cannot go on, and end it. All processes that are connected call this together.

    Args:
        reason: the line that the first process prints.

    Raises:
        StoppedRun: always.
    """
    if is_main_process():
        print_line(f"error: {reason}")
        sys.stderr.flush()
    gather(None)  # torchrun stops the process that prints where another one ends first
    raise StoppedRun(reason)


def raise_again(error: BaseException, place: str) -> NoReturn:
    """Raise an error; one of the arithmetic, as where a training diverges, as a line that ends this process.

    Args:
        error: that of an epoch; an ``ArithmeticError`` explains itself to the user.
        place: where it was raised.

    Raises:
        StoppedRun: for an ``ArithmeticError``. Other processes may not know of it, so nobody is waited for.
    """
    if not isinstance(error, ArithmeticError):
        raise error
    line = f"{place}: {error}"
    print_line(f"error: {line}")
    raise StoppedRun(line) from None


def disconnect() -> None:
    """Leave the process group once all others are here; else do nothing."""
    if is_connected():
        dist.barrier()
        dist.destroy_process_group()
        _patient_group.cache_clear()


def may_be_restarted() -> bool:
    """Whether torchrun has started this process, and may do so again after it has died."""
    return "TORCHELASTIC_RESTART_COUNT" in os.environ


def was_restarted() -> bool:
    """Whether torchrun has restarted this process after one of the processes died (``--max-restarts``)."""
    return _read_number("TORCHELASTIC_RESTART_COUNT", 0) > 0
