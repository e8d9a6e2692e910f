"""Evaluator that scores images with labels and leaves out those for which the network returns no finite numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import nan
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.utils import ensure_tuple

from ..errors import InputError
from ..inputs.checks import RunChecks
from ..processes import print_line
from .predictions import check_devices, check_prediction, explain

__all__ = ["ScoringEvaluator"]

logger = logging.getLogger(__name__)


class ScoringEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` that looks at every prediction before it is postprocessed and scored.

    An image whose prediction has NaN or infinity, or for which the network fails, is in no score and in no report.
    Batches have one item. A score that no image has is NaN, where MONAI's reductions make it 0.

    Args:
        checks: receives the images that are left out; its ``finish`` names them once more and ends the run with exit
            code 1. None is for the validation of a training, which has to end at the first prediction that is not
            finite, and with the exception of a network that fails.
        kwargs: arguments of ``SupervisedEvaluator``.

    Raises:
        SystemExit: with code 1, at such a prediction without ``checks``; where all images of an epoch are left out; and
            where the device has stopped working.
    """

    def __init__(self, *, checks: RunChecks | None = None, **kwargs: Any) -> None:
        self._is_left_out = False
        self._num_scored = 0
        super().__init__(**kwargs)
        self.checks = checks
        super().add_event_handler(Events.EPOCH_STARTED, self._start_counting)
        super().add_event_handler(IterationEvents.FORWARD_COMPLETED, self._check_prediction)

    def add_event_handler(self, event_name: Any, handler: Callable, *args: Any, **kwargs: Any) -> Any:
        """As ignite's; what is called after each image is not called after one that was left out."""
        if event_name is Events.ITERATION_COMPLETED:
            event_name = Events.ITERATION_COMPLETED(event_filter=self._was_scored)
        return super().add_event_handler(event_name, handler, *args, **kwargs)

    def _register_metrics(self, k_metric: dict, add_metrics: dict | None = None) -> None:
        super()._register_metrics(k_metric, add_metrics)
        super().add_event_handler(Events.EPOCH_COMPLETED, self._drop_scores_of_no_image)  # before all other handlers

    def _drop_scores_of_no_image(self) -> None:
        for name, values in self.state.metric_details.items():  # type: ignore[attr-defined]
            if name in self.state.metrics and torch.as_tensor(values).isnan().all():
                self.state.metrics[name] = nan

    def _was_scored(self, engine: Engine, event: int) -> bool:
        return not self._is_left_out

    def _start_counting(self) -> None:
        self._num_scored = 0

    def _file(self) -> str:
        """The first file of the batch's first image."""
        batch: Any = self.state.batch
        item = batch[0] if isinstance(batch, list) else batch  # once it is decollated
        meta = getattr(item["image"], "meta", {})
        return str(ensure_tuple(meta.get("filename_or_obj", "an image"))[0])

    def _check_prediction(self) -> None:
        output: Any = self.state.output
        check_prediction(output["pred"], self._file())

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> Any:
        try:
            output = super()._iteration(engine, batchdata)
        except InputError as error:
            self._leave_out(error)
            return engine.state.output
        except Exception as error:
            if self.checks is None:
                raise
            self._leave_out(self._problem(error))
            return engine.state.output
        self._is_left_out = False
        self._num_scored += 1
        return output

    def _problem(self, error: Exception) -> InputError:
        logger.info("%s cannot be scored", self._file(), exc_info=True)
        reason = explain(error)
        try:
            check_devices([self.state.device], self.network, self._file(), reason)
        except InputError as failure:
            self._end(failure)
        remedy = "check the file, or free memory if that is the reason"
        return InputError(self._file(), f"could not be scored ({reason})", "an image that can be segmented", remedy)

    def _leave_out(self, error: InputError) -> None:
        """Leave out the present image; the last one ends the process where none is scored: metrics fail on nothing."""
        if self.checks is None:
            remedy = "start again with a lower --learning_rate and --overwrite true, or in another --output_dir"
            print_line(f"error: epoch {self.state.epoch}: {error}, or {remedy}")
            raise SystemExit(1) from error
        print_line(f"left out: {error}")
        self.checks.leave_out(str(error))
        self._is_left_out = True
        if self.state.iteration == self.state.epoch_length and not self._num_scored:
            found = f"none of {self.state.iteration} could be scored"
            self._end(InputError("images", found, "at least one", "see the lines above"))

    @staticmethod
    def _end(error: InputError) -> None:
        print_line(f"error: {error}")
        raise SystemExit(1) from error
