"""The checks that a bundle's config makes before and after a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from monai.utils import ensure_tuple
from torch import nn
from tqdm import tqdm

from .datalists import find_images, find_overwritten, name_output, read_section, require_apart
from .files import InputError, InputNote, describe, require_file, require_writable_folder
from .images import LOAD, check_item
from .modalities import pick_files
from .options import check_ascending, check_counts, check_multiples, check_positive, check_seed, is_positive
from .weights import check_weights, compute_sha256

__all__ = ["RunChecks"]

_LONG_LIST = 50
_Need: TypeAlias = tuple[Any, Callable[[Any], None]]


def _print_all(title: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{title}: {line}", file=sys.stderr, flush=True)


def _empty_lists(data: Sequence[Sequence[Any]]) -> list[InputError]:
    names = [f"data list {i} of {len(data)}" for i, items in enumerate(data, 1) if len(items) == 0]
    remedy = "correct --dataset_dir or the list that was passed"
    return [InputError(name, "is empty", "at least one entry", remedy) for name in names]


def _lists_too_short(data: Sequence[Sequence[Any]]) -> list[InputError]:
    """Those that leave a process of a training by several without an image."""
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    found = [(f"data list {i} of {len(data)}", len(items)) for i, items in enumerate(data, 1) if 0 < len(items) < world]
    expected, remedy = f"{world} at least, one for each process", "start fewer processes, or add images to the list"
    return [InputError(name, f"has {length} entries", expected, remedy) for name, length in found]


def _check_output_dir(path: str, data: Sequence[Sequence[Any]]) -> None:
    require_writable_folder(path, "pass another one with --output_dir")
    require_apart(path, chain.from_iterable(data))


def _check_save_path(path: str) -> None:
    if os.path.isdir(Path(path)):
        raise InputError(path, "is a folder", "a file for the weights", "pass a file with --ckpt_path")
    require_writable_folder(Path(path).parent, "pass another --ckpt_path")


def _check_device(device: str | torch.device, name: str = "device") -> None:
    try:
        torch.zeros(1, device=device).cpu()  # trying is the only sure test: a name may be known but its driver missing
    except Exception as error:  # each backend has its own exceptions
        found = f"cannot be used by torch on this machine ({describe(error)})"
        expected, remedy = "a device that it has, such as cpu", f"pass --{name} cpu"
        raise InputError(f"{name} {device}", found, expected, remedy) from error


def _failures(needs: Iterable[_Need]) -> Iterator[str]:
    """The lines of all checks that fail; a value of None is not needed and not checked."""
    for value, check in needs:
        try:
            if value is not None:
                check(value)
        except InputError as error:
            yield str(error)


class RunChecks:
    """Finds the inputs of a run and tells all that is wrong with them in lines of FILE, FOUND, EXPECTED and REMEDY.

    ``section``, ``images`` and ``seed`` never raise, so that a config can be read without its data: they keep what is
    wrong for ``start``, the first item of a config's "run", which ends the process with exit code 1 where the run
    cannot work. Files that cannot be used are left out, and ``finish``, the last item, makes them exit code 1 of a run
    that otherwise went well.

    Args:
        spatial_dims: 2 or 3, of images and labels.
        channels: how many channels an image may have; several numbers where the pipeline copes with each of them.
        label_values: the class numbers that may occur in labels; None allows every whole number from 0 up.
        modalities: words that the names of an image's files end with, such as flair and t1, where each modality is a
            file of its own; an entry's files are put into this order.
        spacing_mm: edge of the voxels that volumes are brought to, or three, along the axes to the right, the front and
            the top, 0 for one that stays; those that would grow beyond any that is meant are left out. None where they
            are not.
        min_size: pixels or voxels along any axis at least; outputs need 2, training may do with volumes of one slice.
        examine: looks at each file of an image and what it holds, and returns a note where that may be a mistake.

    Example:
        >>> checks = RunChecks(spatial_dims=2, channels=1, label_values=[0, 1])
        >>> checks.section("/nowhere", "training")
        []
        >>> checks.start(data=[])
        Traceback (most recent call last):
        SystemExit: 1
    """

    _load = LOAD
    _name_output: Callable[[str], str] = staticmethod(name_output)

    def __init__(
        self,
        spatial_dims: int,
        channels: int | Sequence[int],
        label_values: Sequence[int] | None = None,
        modalities: Sequence[str] = (),
        spacing_mm: float | Sequence[float] | None = None,
        min_size: int = 2,
        examine: Callable[[str, np.ndarray], InputNote | None] = lambda path, values: None,
    ) -> None:
        self.spatial_dims = spatial_dims
        self.channels = channels
        self.label_values = label_values
        self.modalities = modalities
        edges = [edge for edge in ensure_tuple(spacing_mm) if edge != 0]
        self.spacing_mm = spacing_mm if all(map(is_positive, edges)) else None  # what else it may be, start tells
        self.min_size = min_size
        self.examine = examine
        self._errors: list[str] = []
        self._left_out: list[str] = []
        self._notes: list[str] = []

    def section(
        self,
        dataset_dir: str | os.PathLike,
        name: str,
        keys: Sequence[str] = ("image", "label"),
        optional: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """The usable entries, ``{"image": path, "label": path}``, of the list ``name`` in ``dataset_dir/dataset.json``.

        Args:
            dataset_dir: folder with images/, labels/ and dataset.json.
            name: "training", "validation" or "test".
            keys: what each entry must have: "image", and "label" or "centre", a position in the image.
            optional: what it may have besides.
        """
        source = f"{Path(str(dataset_dir), 'dataset.json')}, list {name!r}"
        return self._usable(lambda: read_section(dataset_dir, name, (*keys, *optional)), keys, source, optional)

    def images(self, dataset_dir: str | os.PathLike) -> list[dict[str, Any]]:
        """The usable ``{"image": path}`` of one file, a folder of images, or a folder with a dataset.json.

        Args:
            dataset_dir: file or folder, see :func:`bundlekit.datalists.find_images`.
        """
        items = self._usable(lambda: find_images(dataset_dir, self.modalities), ("image",), str(dataset_dir))
        self._record(self._errors, find_overwritten(items, self._name_output))
        return items

    def seed(self, value: Any) -> int:
        """The seed, or 0 in place of what cannot be one."""
        try:
            check_seed(value)
        except InputError as error:
            self._record(self._errors, [error])
            return 0
        return int(value)

    def start(
        self,
        data: Sequence[Sequence[Any]],
        ckpt_path: str | os.PathLike | None = None,
        network: nn.Module | None = None,
        output_dir: str | os.PathLike | None = None,
        save_path: str | os.PathLike | None = None,
        resume_path: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        volume_device: str | torch.device | None = None,
        counts: Mapping[str, Any] | None = None,
        positive: Mapping[str, Any] | None = None,
        ascending: Mapping[str, Any] | None = None,
        multiples: Mapping[str, tuple[Any, Sequence[int]]] | None = None,
        phantom_sha256: str | None = None,
        pretrained_path: str | os.PathLike | None = None,
    ) -> None:
        """Name the files left out; end the process, with all reasons at once, where the run cannot work.

        Args:
            data: the data lists of the run, from here or from elsewhere; none may be empty, or shorter than there are
                processes.
            ckpt_path: weights that must be there; None where the run needs none.
            network: the network that the weights must fit.
            output_dir: folder that must be writable and hold none of the images to segment; it is created.
            save_path: file of weights that the run will write; its folder must be writable and is created.
            resume_path: state file that the run continues from and that must be there; None for a fresh run.
            device: device that torch must be able to use on this machine.
            volume_device: likewise, where it is another one that volumes are put together on.
            counts: options by name that must be whole numbers from 1 up, such as the number of epochs.
            positive: those that must be numbers above 0.
            ascending: those that must be two numbers, the lower one first.
            multiples: those that must be whole numbers above 0, each a multiple of a step of its own, and the steps.
            phantom_sha256: SHA-256 of the shipped weights where these were trained on phantoms alone; a run that uses
                them is told so.
            pretrained_path: weights that a part of the network starts from and that must be there; None for none.

        Raises:
            SystemExit: with code 1, after the reasons were printed on stderr.
        """
        errors = list(self._errors) or [str(error) for error in [*_empty_lists(data), *_lists_too_short(data)]]
        resume_remedy = "start without --resume true, or pass the old --output_dir"
        needs: list[_Need] = [  # a command line turns a path such as 77 into a number
            (output_dir, lambda path: _check_output_dir(str(path), data)),
            (save_path, lambda path: _check_save_path(str(path))),
            (ckpt_path, lambda path: check_weights(str(path), network)),
            (pretrained_path, lambda path: check_weights(str(path))),
            (resume_path, lambda path: require_file(str(path), resume_remedy)),
            (device, _check_device),
            (volume_device, lambda name: _check_device(name, "volume_device")),
        ]
        for options, check in (
            (counts, check_counts),
            (positive, check_positive),
            (ascending, check_ascending),
            (multiples, check_multiples),
        ):
            needs += [({name: value}, check) for name, value in (options or {}).items()]
        errors += _failures(needs)
        _print_all("note", self._notes)
        _print_all("left out", self._left_out)
        _print_all("error", errors)
        if errors:
            raise SystemExit(1)
        if ckpt_path is not None and phantom_sha256 == compute_sha256(str(ckpt_path)):
            note = f"{ckpt_path} was trained on phantoms, made-up images, alone: train on images of your own before use"
            _print_all("note", [note])

    def finish(self) -> None:
        """Name the files left out once more, and end the process with exit code 1 where there are any.

        Raises:
            SystemExit: with code 1, after the files were printed on stderr.
        """
        _print_all("left out", self._left_out)
        if self._left_out:
            raise SystemExit(1)

    def _usable(
        self, find: Callable[[], list[dict[str, Any]]], keys: Sequence[str], source: str, optional: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        try:
            items = find()
        except InputError as error:
            self._record(self._errors, [error])
            return []
        kept = []
        for item in tqdm(items, desc=f"checking {source}", unit="item", disable=len(items) <= _LONG_LIST):
            problems = self._problems(item, [*keys, *(key for key in optional if key in item)])
            notes = [problem for problem in problems if isinstance(problem, InputNote)]
            self._record(self._notes, notes)
            self._record(self._left_out, [problem for problem in problems if problem not in notes])
            if len(problems) == len(notes):
                kept.append(item)
        if not kept:
            found = f"none of {len(items)} can be used"
            remedy = "correct the files that were left out"
            self._record(self._errors, [InputError(source, found, "at least one", remedy)])
        return kept

    def _problems(self, item: dict[str, Any], keys: Sequence[str]) -> list[InputError]:
        """All that is wrong with an entry; its files are put into the order of the modalities."""
        paths = item.get("image")
        if self.modalities and isinstance(paths, list) and paths and all(isinstance(path, str) for path in paths):
            try:
                item["image"] = pick_files(paths, self.modalities)
            except InputError as error:
                return [error]
        return check_item(
            item,
            keys,
            self.spatial_dims,
            self.channels,
            self.label_values,
            load=self._load,
            min_size=self.min_size,
            examine=self.examine,
            spacing_mm=self.spacing_mm,
        )

    @staticmethod
    def _record(lines: list[str], problems: Iterable[InputError]) -> None:
        """Add what is not there yet: two lists of one run often share a reason, such as a missing folder."""
        lines += [line for line in dict.fromkeys(map(str, problems)) if line not in lines]
