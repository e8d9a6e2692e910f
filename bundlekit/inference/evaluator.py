"""Evaluator that segments many files: reports and skips files that fail, and records finished files at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Events
from monai.data import Dataset, MetaTensor
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.transforms import Compose, LoadImaged
from monai.utils import ensure_tuple

from ..errors import InputError, InputNote
from ..inputs.checks import RunChecks
from ..inputs.values import decode
from ..processes import print_line
from .predictions import check_devices, check_prediction, explain
from .record import RunRecord

__all__ = ["FileDataset", "FileEvaluator"]

logger = logging.getLogger(__name__)
_FILES, _NOTES = "files", "notes"
_PROBLEM, _FAILURE = "problem", "failure"


class FileDataset(Dataset):
    """MONAI's ``Dataset`` of ``{"image": path or paths}``, whose items say why where a file cannot be prepared.

    Each file is decoded once, by the first transform, MONAI's ``LoadImaged``, and its values are checked there. Each
    item also has its files, for :class:`FileEvaluator`. Batches have one item.
    """

    transform: Compose
    check: Callable[[MetaTensor, Sequence[str]], list[InputNote]] | None = None
    """Checks the values of an image that was decoded; :class:`FileEvaluator` sets it."""

    def __getitem__(self, index: Any) -> Any:
        item = self.data[index]
        files = json.dumps(ensure_tuple(item["image"]))
        try:
            if self.check is None or not isinstance(self.transform.transforms[0], LoadImaged):
                return {**super().__getitem__(index), _FILES: files}
            loaded, notes = self._load(item, self.check)
            prepared: Any = self.transform(loaded, start=1)
            return {**prepared, _FILES: files, _NOTES: json.dumps(notes)}
        except InputError as error:
            return {_FILES: files, _PROBLEM: str(error)}
        except Exception as error:  # each reader and each transform has its own
            logger.info("%s cannot be prepared", files, exc_info=True)
            return {_FILES: files, _FAILURE: explain(error)}

    def _load(self, item: dict[str, Any], check: Callable[..., list[InputNote]]) -> tuple[dict[str, Any], list[str]]:
        """The item after the first transform, and notes on its values."""
        load, paths = self.transform.transforms[0], ensure_tuple(item["image"])
        loaded: dict[str, Any] = {}

        def load_image(image: Any) -> MetaTensor:
            loaded.update(load({**item, "image": image}))
            return loaded["image"]

        image = decode(paths, load_image)
        return loaded, [str(note) for note in check(image, paths)]


class FileEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for a :class:`FileDataset`: goes on where a file fails, and records the others.

    A file fails, too, where the network returns NaN or infinity for it: nothing is made of such an output. Where the
    device has stopped working, as after some CUDA errors every call does, the run ends at the first file.

    Args:
        checks: receives the files that fail; its ``finish`` reports them and ends the run with exit code 1. Its check
            of values is made where the :class:`FileDataset` decodes a file.
        record: receives the files whose outputs are written; the path of an output is the "saved_to" in its metadata,
            which ``SaveImaged(savepath_in_metadict=True)`` writes.
        kwargs: arguments of ``SupervisedEvaluator``.

    Raises:
        SystemExit: where the device has stopped working.
    """

    def __init__(self, *, checks: RunChecks, record: RunRecord, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.checks = checks
        self.record = record
        dataset = getattr(kwargs.get("val_data_loader"), "dataset", None)
        if isinstance(dataset, FileDataset):
            dataset.check = checks.value_check()
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._check_prediction)
        self.add_event_handler(Events.ITERATION_COMPLETED, self._write_down)  # after the handlers that measure

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]  # as MONAI's
        self.record.begin()
        if self.state.epoch_length:
            super().run(global_epoch)
        else:  # all is finished, but the run may have been killed before its handlers wrote what they collect
            self.fire_event(Events.COMPLETED)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        [files] = batchdata[_FILES]
        for note in (note for notes in batchdata.get(_NOTES, []) for note in json.loads(notes)):
            print_line(f"note: {note}")
        if _PROBLEM in batchdata:
            return self._leave_out(engine, *batchdata[_PROBLEM])
        try:
            if _FAILURE not in batchdata:
                return super()._iteration(engine, batchdata)
            [reason] = batchdata[_FAILURE]
        except InputError as error:
            return self._leave_out(engine, str(error))
        except Exception as error:  # memory above all, and whatever a transform cannot cope with
            logger.info("%s cannot be segmented", files, exc_info=True)
            reason = explain(error)
            self._require_devices(json.loads(files)[0], reason)
        remedy = "check the file, or free memory or disk space if the reason is one of these"
        problem = InputError(
            json.loads(files)[0], f"could not be segmented ({reason})", "a file that can be segmented", remedy
        )
        return self._leave_out(engine, str(problem))

    def _check_prediction(self) -> None:
        batch: Any = self.state.batch
        output: Any = self.state.output
        check_prediction(output["pred"], json.loads(*batch[_FILES])[0])

    def _require_devices(self, file: str, reason: str) -> None:
        """End the process where no later file can be segmented either, which is no fault of these files."""
        try:
            check_devices([self.state.device], self.network, file, reason)
        except InputError as error:
            print_line(f"error: {error}")
            raise SystemExit(1) from error

    def _leave_out(self, engine: SupervisedEvaluator, problem: str) -> Any:
        print_line(f"left out: {problem}")
        self.checks.leave_out(problem)
        engine.state.batch, engine.state.output = [], []
        return engine.state.output

    def _write_down(self) -> None:
        batch: Any = self.state.batch
        output: Any = self.state.output
        for inputs, outputs in zip(batch, output, strict=True):
            images = [value for value in outputs.values() if isinstance(value, MetaTensor)]
            saved = {str(image.meta["saved_to"]) for image in images if "saved_to" in image.meta}
            self.record.mark_finished(json.loads(inputs[_FILES]), sorted(saved))
