"""Evaluator that segments many files: reports and skips files that fail, and records finished files at once."""

from __future__ import annotations

import json
import logging
from typing import Any

from ignite.engine import Events
from monai.data import Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.utils import ensure_tuple

from ..errors import InputError, describe
from ..inputs.checks import RunChecks
from ..processes import print_line
from .record import RunRecord

__all__ = ["FileDataset", "FileEvaluator"]

logger = logging.getLogger(__name__)
_FILES, _FAILURE = "files", "failure"


def _first_cause(error: BaseException) -> BaseException:
    """The original error; MONAI's transforms wrap it into errors that only name the transform."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _explain(error: Exception) -> str:
    cause = _first_cause(error)
    return describe(cause) if isinstance(cause, Exception) else type(cause).__name__


class FileDataset(Dataset):
    """MONAI's ``Dataset`` of ``{"image": path or paths}``, whose items say why where a file cannot be prepared.

    Each item also has its files, for :class:`FileEvaluator`. Batches have one item.
    """

    def __getitem__(self, index: Any) -> Any:
        files = json.dumps(ensure_tuple(self.data[index]["image"]))
        try:
            return {**super().__getitem__(index), _FILES: files}
        except Exception as error:  # each reader and each transform has its own
            logger.info("%s cannot be prepared", files, exc_info=True)
            return {_FILES: files, _FAILURE: _explain(error)}


class FileEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for a :class:`FileDataset`: goes on where a file fails, and records the others.

    Args:
        checks: receives the files that fail; its ``finish`` reports them and ends the run with exit code 1.
        record: receives the files whose outputs are written; the path of an output is the "saved_to" in its metadata,
            which ``SaveImaged(savepath_in_metadict=True)`` writes.
        kwargs: arguments of ``SupervisedEvaluator``.
    """

    def __init__(self, *, checks: RunChecks, record: RunRecord, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.checks = checks
        self.record = record
        self.add_event_handler(Events.ITERATION_COMPLETED, self._write_down)  # after the handlers that measure

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]  # as MONAI's
        self.record.begin()
        if self.state.epoch_length:
            super().run(global_epoch)
        else:  # all is finished, but the run may have been killed before its handlers wrote what they collect
            self.fire_event(Events.COMPLETED)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        [files] = batchdata[_FILES]
        try:
            if _FAILURE not in batchdata:
                return super()._iteration(engine, batchdata)
            [reason] = batchdata[_FAILURE]
        except Exception as error:  # memory above all, and whatever a transform cannot cope with
            logger.info("%s cannot be segmented", files, exc_info=True)
            reason = _explain(error)
        remedy = "look at the file, or at the memory and the disk where the reason is one of these"
        problem = InputError(json.loads(files)[0], f"could not be segmented ({reason})", "outputs", remedy)
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
