"""The checks that a bundle's config makes before and after a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from monai.utils import ensure_tuple
from torch import nn

from ..errors import InputError, InputNote
from ..files import compute_sha256
from ..inference.record import RunRecord
from ..processes import disconnect, from_main_process, gather, is_main_process
from ..training.folder import claim_folder, note_other_weights, release_folder
from .command_line import path_of
from .datalists import find_images, find_output_collisions, name_output, read_section
from .decoded import keeping
from .entries import check_items
from .images import LOAD, Expected
from .modalities import put_in_order
from .options import check_options, is_on, is_positive
from .preconditions import Need, check_device, check_output_dir, check_save_path, empty_lists, failures, lists_too_short
from .values import Examine, check_decoded, note_nothing
from .weights import check_weights

__all__ = ["RunChecks"]

_MAY_DIFFER = ("max_epochs", "num_workers", "overwrite", "resume")
"""Options of a training that may change when it is resumed; the epochs where the schedule does not depend on them."""


def _print_all(title: str, lines: Iterable[str]) -> None:
    for line in lines:
        print(f"{title}: {line}", file=sys.stderr, flush=True)


class RunChecks:
    """Finds the inputs of a run and reports all that is wrong with them, one line each: FILE, FOUND, EXPECTED, REMEDY.

    ``section``, ``images`` and ``attempt`` never raise, so that a config can be read without its data. They keep what
    is wrong for ``start``, the first item of a config's "run", which ends the process with exit code 1 where the run
    cannot work. Files that cannot be used are left out; ``finish``, the last item, then ends an otherwise successful
    run with exit code 1.

    Args:
        spatial_dims: 2 or 3, of images and labels.
        channels: how many channels an image may have; several numbers where the pipeline copes with each of them.
        label_values: the class numbers that may occur in labels; None allows every integer of at least 0.
        modalities: words that the names of an image's files end with, such as flair and t1, where each modality is a
            file of its own; an entry's files are put into this order.
        spacing_mm: edge of the voxels that volumes are resampled to, or three edges, along the axes to the right, the
            front and the top, 0 for an axis that is not resampled; volumes that would become too large or too small are
            left out. None where volumes are not resampled.
        min_size: smallest number of pixels or voxels along an axis; outputs need 2, training may use single slices.
        examine: looks at each file of an image and its values, and returns a note where they may be a mistake.
        options: the options of the run with their rules, see :func:`.options.check_options`.
        output_dir: folder that must be writable and hold none of the images to segment; it is created.
        save_path: file of weights that the run will write; its folder must be writable and is created.
        resume: whether the run goes on with a training whose ``state.pt`` is in ``output_dir``; a switch.
        overwrite: whether the files of another training in ``output_dir`` may be lost; a switch.
        ckpt_path: weights that must exist; None where the run needs none.
        pretrained_path: weights that a part of the network starts from and that must exist; None for none.
        device: device that torch must be able to use on this machine.
        volume_device: likewise, where volumes are assembled on another device.
        phantom_sha256: SHA-256 of the shipped weights where these were trained only on phantoms; a run that uses them
            says so.

    Example:
        >>> checks = RunChecks(spatial_dims=2, channels=1, label_values=[0, 1])
        >>> items = checks.section("/nowhere", "training")
        >>> items
        []
        >>> checks.start(items)
        Traceback (most recent call last):
        SystemExit: 1
    """

    _load = LOAD
    _load_label: LoadImage | None = None  # as the images

    def __init__(
        self,
        spatial_dims: int,
        channels: int | Sequence[int],
        label_values: Sequence[int] | None = None,
        modalities: Sequence[str] = (),
        spacing_mm: float | Sequence[float] | None = None,
        min_size: int = 2,
        examine: Examine = note_nothing,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        output_dir: str | os.PathLike | None = None,
        save_path: str | os.PathLike | None = None,
        resume: bool | str = False,
        overwrite: bool | str = False,
        ckpt_path: str | os.PathLike | None = None,
        pretrained_path: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        volume_device: str | torch.device | None = None,
        phantom_sha256: str | None = None,
    ) -> None:
        self.spatial_dims = spatial_dims
        self.channels = channels
        self.label_values = label_values
        self.modalities = modalities
        edges = [edge for edge in ensure_tuple(spacing_mm) if edge != 0]
        self.spacing_mm = spacing_mm if all(map(is_positive, edges)) else None  # options report any other value
        self.min_size = min_size
        self.examine = examine
        self.options = options or {}
        self.output_dir = output_dir
        self.save_path = save_path
        self.resume = resume
        self.overwrite = overwrite
        self.ckpt_path = ckpt_path
        self.pretrained_path = pretrained_path
        self.device = device
        self.volume_device = volume_device
        self.phantom_sha256 = phantom_sha256
        self._run_record: RunRecord | None = None
        self._errors: dict[str, None] = {}  # lines in the order in which they were found, each one once
        self._left_out: dict[str, None] = {}
        self._notes: dict[str, None] = {}

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
            optional: further keys that it may have.
        """
        source = f"{Path(str(dataset_dir), 'dataset.json')}, list {name!r}"

        def find() -> list[dict[str, Any]]:
            items = self._found(lambda: read_section(dataset_dir, name, (*keys, *optional)))
            return self._usable(items, keys, source, optional, load=keeping(self._load)) if items else []

        return from_main_process(find)

    def images(self, dataset_dir: str | os.PathLike, record: RunRecord | None = None) -> list[dict[str, Any]]:
        """The usable ``{"image": path}`` of one file, a folder of images, or a folder with a dataset.json.

        Args:
            dataset_dir: file or folder, see :func:`bundlekit.inputs.datalists.find_images`.
            record: that of a run which several processes may share; each has images of its own then, and those that
                are finished are left out. The values of an image are then checked where :class:`.FileDataset` decodes
                it. None gives all images, after a look at their values.
        """
        found = from_main_process(lambda: self._found(lambda: find_images(dataset_dir, self.modalities)))
        for item in found:
            put_in_order(item, self.modalities)
        self._run_record = record

        def usable(left: list[dict[str, Any]]) -> list[dict[str, Any]]:
            load = self._load if record is None else None
            kept = self._usable(left, ("image",), str(dataset_dir), load=load, may_be_none=len(left) < len(found))
            unusable = set(map(id, left)) - set(map(id, kept))
            others = [item for item in found if id(item) not in unusable]
            self._record(self._errors, find_output_collisions(others, self._name_output))
            return kept

        if not found:
            return []
        return usable(found) if record is None else record.share(found, usable)

    def attempt(self, change: Callable[..., Any], value: Any, *more: Any) -> Any:
        """What ``change`` makes of a value, or the value itself where that fails: ``start`` tells why.

        Args:
            change: raises ValueError where it fails.
            value: its first argument.
            more: its other arguments.
        """
        try:
            return change(value, *more)
        except ValueError as error:
            self._record(self._errors, [error])
            return value

    def start(self, *data: Sequence[Any], network: nn.Module | None = None) -> None:
        """Report the files left out; end the process, with all reasons at once, where the run cannot work.

        Args:
            data: the data lists of the run, from here or from elsewhere; none may be empty, or shorter than the number
                of processes.
            network: the network that the weights in ``ckpt_path`` must fit.

        Raises:
            SystemExit: with code 1, after the reasons were printed on stderr.
        """
        lists = [] if self._run_record else [*empty_lists(data), *lists_too_short(data)]  # a share may be empty
        errors = self._of_all(self._errors) or [str(error) for error in lists]
        errors += [*failures(self._needs(data, network)), *map(str, check_options(self.options))]
        errors = self._of_all(errors) or self._of_all(self._claim())  # where one process cannot work all end
        if is_main_process():
            _print_all("note", self._notes)
            _print_all("left out", self._left_out)
            _print_all("error", errors)
        if errors:
            gather(None)  # torchrun stops the process that prints where another one ends first
            raise SystemExit(1)
        path = self.ckpt_path
        if path is not None and is_main_process():
            _print_all("note", note_other_weights(str(self.output_dir), str(path)))
        if path is not None and is_main_process() and self.phantom_sha256 == compute_sha256(str(path)):
            note = f"{path} was trained only on phantoms, which are made-up images: train on your own images before use"
            _print_all("note", [note])

    def _claim(self) -> list[str]:
        """Lock the folder of a training, so that nothing is lost there; why that cannot be done."""
        if self.save_path is None or self.output_dir is None or not is_main_process():
            return []
        switches = (str(switch).lower() == "true" for switch in (self.resume, self.overwrite))
        try:
            notes = claim_folder(str(self.output_dir), str(self.save_path), *switches)
        except InputError as error:
            return [str(error)]
        self._notes.update(dict.fromkeys(notes))
        return []

    @property
    def settings(self) -> dict[str, Any]:
        """The options that two trainings have in common where one is the other, resumed."""
        return {
            name: is_on(declared["value"]) if "switch" in declared else declared["value"]
            for name, declared in self.options.items()
            if name not in _MAY_DIFFER
        }

    def _needs(self, data: Sequence[Sequence[Any]], network: nn.Module | None) -> list[Need]:
        """What the run cannot do without; a command line turns a path such as 77 into a number, hence ``path_of``."""
        return [
            (self.output_dir, lambda path: check_output_dir(path_of(path), data)),
            (self.save_path, lambda path: check_save_path(path_of(path))),
            (self.ckpt_path, lambda path: check_weights(path_of(path), network)),
            (self.pretrained_path, lambda path: check_weights(path_of(path))),
            (self.device, check_device),
            (self.volume_device, lambda name: check_device(name, "volume_device")),
        ]

    def value_check(self) -> Callable[[MetaTensor, Sequence[str]], list[InputNote]]:
        """:func:`.values.check_decoded` as this run needs it, for whatever decodes the files of :meth:`images`."""
        return partial(check_decoded, spatial_dims=self.spatial_dims, examine=self.examine)

    def leave_out(self, line: str) -> None:
        """Let ``finish`` name a file that turned out to be unusable during the run."""
        self._left_out[line] = None

    def finish(self) -> None:
        """Name the files left out once more, and end the process with exit code 1 where there are any.

        Where several processes share the images of a run, the first one reports for all, and all end together.

        Raises:
            SystemExit: with code 1, after the files were printed on stderr.
        """
        record = self._run_record
        left_out = self._of_all(self._left_out)
        if is_main_process():
            _print_all("left out", left_out)
        if record is not None:
            record.end(len(left_out))
        if self.save_path is not None and self.output_dir is not None:
            release_folder(str(self.output_dir), str(self.save_path))
        disconnect()
        if left_out:
            raise SystemExit(1)

    def _found(self, find: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        try:
            return find()
        except InputError as error:
            self._record(self._errors, [error])
            return []

    def _usable(
        self,
        items: list[dict[str, Any]],
        keys: Sequence[str],
        source: str,
        optional: Sequence[str] = (),
        load: LoadImage | None = None,
        may_be_none: bool = False,
    ) -> list[dict[str, Any]]:
        """Those that can be used: all headers are read first, then all values by ``load``, or none without it."""
        usable = []
        for item, problems in check_items(items, keys, self._expected(), source, optional, self.modalities, load):
            errors = [problem for problem in problems if not isinstance(problem, InputNote)]
            self._record(self._notes, [problem for problem in problems if isinstance(problem, InputNote)])
            self._record(self._left_out, errors)
            if not errors:
                usable.append(item)
        if not usable and not may_be_none:
            found = f"none of {len(items)} can be used"
            remedy = "correct the files that were left out"
            self._record(self._errors, [InputError(source, found, "at least one", remedy)])
        return usable

    def _name_output(self, path: str) -> str:
        """The name of a path's outputs."""
        return name_output(path)

    def _expected(self) -> Expected:
        values = self.label_values, self._load, self.min_size, self.examine, self.spacing_mm, self._load_label
        return Expected(self.spatial_dims, self.channels, *values)

    @staticmethod
    def _of_all(lines: Iterable[str]) -> list[str]:
        """The lines of all processes that are connected, each one once."""
        return list(dict.fromkeys(chain.from_iterable(gather(list(lines)))))

    @staticmethod
    def _record(lines: dict[str, None], problems: Iterable[Exception]) -> None:
        """Add what is not there yet: two lists of one run often share a reason, such as a missing folder."""
        lines.update(dict.fromkeys(map(str, problems)))
