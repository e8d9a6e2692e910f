"""Record of the finished images of a run, so that an interrupted run continues where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from ..files import compute_sha256
from ..inputs.parts import find_state
from ..processes import from_main_process, gather, is_connected, is_main_process, rank_and_world_size, was_restarted
from .finished import FinishedLines

__all__ = ["RunRecord"]


def _is_unchanged(line: Mapping[str, Any]) -> bool:
    """Whether an image's files are those that a line is about."""
    try:
        return bool(line["state"] == [find_state(path) for path in line["image"]])
    except OSError:
        return False


def _image_key(image: Any) -> str:
    return json.dumps([os.path.abspath(path) for path in ensure_tuple(image)])


class RunRecord:
    """A line on the disk for each image whose outputs are all written, in hidden files of the outputs' folder.

    Each process writes its own file, ``.finished-<number>.jsonl``, and reads the files of all processes. So a run can
    be continued by more or fewer processes, on this or on other machines with the same folder. An image counts as
    finished where all its files are unchanged, also the slices of a folder and the values next to a header, its outputs
    are still there, as long as they were and written over by no later run, and weights and settings are the same. The
    files go when a run has ended with nothing left out.

    Args:
        output_dir: folder of the outputs.
        resume: leave out the images that are finished; else a run starts from the first one. A run that torchrun has
            restarted is taken up in any case.
        ckpt_path: weights of the run; None for none.
        settings: options that the outputs also depend on, by name.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> record = RunRecord(folder / "out", settings={"threshold": 0.5})
        >>> record.begin()
        >>> record.keep_row({"area": 3})
        >>> record.mark_finished(str(folder / "a.png"), outputs=[])
        >>> again = RunRecord(folder / "out", settings={"threshold": 0.5})
        >>> again.is_finished(str(folder / "a.png")), again.is_finished(str(folder / "b.png"))
        (True, False)
        >>> again.rows()
        [{'area': 3}]
        >>> RunRecord(folder / "out", settings={"threshold": 0.4}).is_finished(str(folder / "a.png"))
        False
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        resume: bool = True,
        ckpt_path: str | os.PathLike | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(str(output_dir))
        self.resume = resume or was_restarted()
        self.ckpt_path = ckpt_path
        self.settings = dict(settings or {})
        self.num_added = 0
        self.num_finished_before = 0
        self._finished = FinishedLines(self.folder)
        self._notes: list[Any] = []
        self._names: set[str] | None = None
        self._reported: set[str] | None = None  # images whose rows are in the report
        self._num_reported_early: dict[str, int] = {}  # rows that were there before their image was added, by image
        self._num_notes_reported = self._num_lines_reported = self._num_restarts = 0

    def share(
        self, items: Sequence[dict[str, Any]], choose: Callable[[list[Any]], list[Any]] | None = None
    ) -> list[dict[str, Any]]:
        """The items of a run, ``{"image": path or paths}``, that this process has to segment.

        Processes that are connected share what is not finished; others, which cannot know when one of them begins,
        share all, and each leaves out what is finished of its own.

        Args:
            items: those of all processes.
            choose: returns those of the unfinished items that can be used; the first of connected processes calls it
                for all of them. None takes all.
        """
        self._names = {_image_key(item["image"]) for item in items if item.get("image")}
        number, count = rank_and_world_size()
        step = slice(number, None, count)
        candidates = items if is_connected() else items[step]

        def find() -> list[dict[str, Any]]:
            left = [item for item in candidates if not self.is_finished(item.get("image"))]
            self.num_finished_before = len(candidates) - len(left)
            return left if choose is None else choose(left)

        left = from_main_process(find)  # nobody adds to the record before it was read
        return left[step] if is_connected() else left

    def begin(self) -> None:
        """Without ``resume``, forget what an earlier run has left."""
        self._notes.clear()
        self._reported, self._num_notes_reported, self.num_added = None, 0, 0
        if not self.resume:
            self._finished.remove(*rank_and_world_size())

    def is_finished(self, image: Any) -> bool:
        """Whether an earlier run has written all outputs of an image, given by its file or its files."""
        if not self.resume:
            return False
        try:
            line = self._earlier.get(_image_key(image))
            return line is not None and _is_unchanged(line) and self._is_whole(line["outputs"])
        except (OSError, TypeError):  # reported when the image is read
            return False

    def keep_row(self, row: Any) -> None:
        """Keep what a report has measured in the image that is added next, as JSON can hold it."""
        self._notes.append(row)

    def mark_finished(self, image: str | Sequence[str], outputs: Sequence[str | os.PathLike]) -> None:
        """Write down that an image is finished.

        Args:
            image: its file, or its files.
            outputs: the files that were written for it.
        """
        paths = json.loads(_image_key(image))
        line = {
            "run": self._key,
            "at": time.time_ns(),
            "image": paths,
            "state": [find_state(path) for path in paths],
            "outputs": {os.path.relpath(path, self.folder): os.path.getsize(path) for path in outputs},
            "rows": self._notes,
        }
        self._finished.append(rank_and_world_size()[0], line)
        self._num_reported_early[json.dumps(paths)] = self._num_notes_reported
        self._num_notes_reported = 0
        self._notes = []
        self.num_added += 1

    def rows(self) -> list[Any]:
        """What was measured so far in all images of the run, by all processes, in the order of the images' paths."""
        return self._rows(self._own_lines())

    def write_report(self, write: Callable[[list[Any]], Any]) -> None:
        """Let ``write`` write the rows that are there, and again where another process has added some meanwhile."""
        rows: list[Any] = []
        while rows != (rows := self.rows()):
            write(rows)

    def extend_report(self, write: Callable[[list[Any]], Any], append: Callable[[list[Any]], Any]) -> None:
        """Let ``append`` add the rows that came since the last call, so that a report costs as much as it has rows.

        The first time, and where a row was replaced, ``write`` writes all rows. Where several processes share a run
        the first one does this, with the rows that the others have written by then; :meth:`write_report` of the last
        one to end has all.
        """
        if rank_and_world_size()[0] > 0:
            return
        rows = self._new_rows()
        if rows is not None:
            append(rows)
            return
        lines = self._own_lines()
        self._reported = set(lines)
        self._num_notes_reported, self._num_lines_reported = len(self._notes), len(self._finished.read)
        self._num_restarts = self._finished.num_restarts
        write(self._rows(lines))

    def _rows(self, lines: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        return [row for name in sorted(lines) for row in lines[name]["rows"]] + self._notes

    def _new_rows(self) -> list[Any] | None:
        """The rows that are not in the report; None where one that is there has been replaced."""
        self._finished.refresh()
        if self._reported is None or self._num_restarts != self._finished.num_restarts:
            return None
        rows = []
        for line in self._finished.read[self._num_lines_reported :]:
            name = json.dumps(line["image"])
            if line["run"] != self._key or (self._names is not None and name not in self._names):
                continue
            if name in self._reported:
                return None
            rows += line["rows"][self._num_reported_early.pop(name, 0) :]
            self._reported.add(name)
        self._num_lines_reported = len(self._finished.read)
        rows += self._notes[self._num_notes_reported :]
        self._num_notes_reported = len(self._notes)
        return rows

    def end(self, num_left_out: int) -> None:
        """Say what was done; where nothing was left out, and all processes are here, remove the record's files.

        Args:
            num_left_out: how many files all processes have left out.
        """
        parts = gather((self.num_added, self.num_finished_before))
        if is_main_process():
            added, before = map(sum, zip(*parts, strict=True))
            earlier = f", {before} finished before (--resume false segments them again)" if before else ""
            print(f"{added} segmented{earlier}, {num_left_out} left out: {self.folder}", flush=True)
        if num_left_out == 0 and len(parts) == rank_and_world_size()[1]:
            self._finished.remove(*rank_and_world_size())

    @cached_property
    def _key(self) -> str:
        weights = compute_sha256(str(self.ckpt_path)) if self.ckpt_path and os.path.isfile(self.ckpt_path) else None
        text = json.dumps([weights, self.settings], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _earlier(self) -> dict[str, dict[str, Any]]:
        self._finished.refresh()
        return self._finished.valid(self._key)

    def _own_lines(self) -> dict[str, dict[str, Any]]:
        """By image of this run, the line on it, where its files have not changed."""
        self._finished.refresh()
        lines = self._finished.valid(self._key)
        names = lines if self._names is None else lines.keys() & self._names
        return {name: lines[name] for name in names if _is_unchanged(lines[name])}

    def _is_whole(self, outputs: Mapping[str, int]) -> bool:
        """Whether all are there, as long as they were: a copy or a full disk may have cut one short."""
        return all((self.folder / name).stat().st_size == size for name, size in outputs.items())
