"""Logs pictures of validation images with label and prediction to TensorBoard and MLflow during training.

The numbers are the business of MONAI's ``TensorBoardStatsHandler`` and ``MLFlowHandler``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import MLFlowHandler
from monai.transforms import ResampleToMatch
from monai.utils import convert_to_tensor
from PIL import Image

from ..inputs.datalists import name_output
from .drawing import as_displayed
from .panels import draw_panels

__all__ = ["MLFlowPictures", "TensorBoardPictures", "draw_item", "end_mlflow_runs"]


def _to_label_map(channels: MetaTensor, one_hot: bool) -> torch.Tensor:
    """Numbers of shape (1, *spatial): of one channel as it is, of several the last one that is set."""
    values = channels.as_tensor().float()  # numpy and interpolation know no bfloat16
    if len(values) == 1:
        return values
    first = 0 if one_hot else 1
    numbers = torch.arange(first, first + len(values), device=values.device).reshape(-1, *[1] * (values.ndim - 1))
    return (values.round() * numbers).amax(dim=0, keepdim=True)


def draw_item(item: dict[str, Any], pred_key: str = "pred", one_hot: bool = False) -> tuple[str, Image.Image]:
    """Name and picture of an image that an evaluator has gone through: what its metrics compare, over the image.

    Label and prediction are shown as they are scored, in the label's own space; an image that preprocessing has turned,
    resampled or cropped is brought there by its affine.

    Args:
        item: image, label and prediction after postprocessing, with their affines.
        pred_key: key of the prediction.
        one_hot: whether the channels of labels are classes with the background first; otherwise several channels are
            regions, of which the last one that holds a pixel gives its colour.

    Shape:
        each part of ``item``: ``(channels, x, y[, z])``.

    Example:
        >>> image = MetaTensor(torch.rand(1, 30, 20), meta={"filename_or_obj": "a/b.png"})
        >>> label = MetaTensor(torch.ones(1, 30, 20))
        >>> name, page = draw_item({"image": image, "label": label, "pred": label})
        >>> name
        'b'
    """
    label = item["label"]
    image = MetaTensor(item["image"].as_tensor().float(), affine=item["image"].affine)
    fits = image.shape[1:] == label.shape[1:] and torch.equal(image.affine, label.affine)
    shown = image if fits else ResampleToMatch(mode="bilinear", padding_mode="zeros")(image, label)
    maps = [_to_label_map(values, one_hot).cpu() for values in (label, item[pred_key])]
    stacked = as_displayed(
        MetaTensor(torch.cat([convert_to_tensor(shown, track_meta=False).cpu(), *maps]), affine=label.affine)
    )
    name = name_output(item["image"].meta["filename_or_obj"])
    return name, draw_panels(stacked[..., :-2], stacked[..., -2], stacked[..., -1], title=name)


def _draw_batch(engine: Engine, pred_key: str, one_hot: bool) -> list[tuple[str, Image.Image]]:
    items: Any = engine.state.output  # a decollated batch
    return [draw_item(item, pred_key, one_hot) for item in items]


class TensorBoardPictures:
    """Draws the first validation images into TensorBoard, as the ``iteration_event_writer`` of MONAI's stats handler.

    Args:
        limit: how many batches of a validation, the first ones; the bundles validate in batches of one image.
        pred_key: see :func:`draw_item`.
        one_hot: see :func:`draw_item`.
    """

    def __init__(self, limit: int = 4, pred_key: str = "pred", one_hot: bool = False) -> None:
        self.limit = limit
        self.pred_key = pred_key
        self.one_hot = one_hot

    def __call__(self, engine: Engine, writer: Any) -> None:
        if engine.state.iteration <= self.limit:
            for name, page in _draw_batch(engine, self.pred_key, self.one_hot):
                writer.add_image(f"pictures/{name}", np.asarray(page), engine.state.epoch, dataformats="HWC")


class MLFlowPictures(MLFlowHandler):
    """Keeps pictures of the first validation images as artifacts ``pictures/<name>/epoch_<n>.png`` of the MLflow run.

    The run is the one that MONAI's ``--tracking mlflow`` starts, with the same first three arguments.

    Args:
        tracking_uri: where MLflow keeps its runs, such as ``sqlite:////folder/mlruns.db``.
        experiment_name: name of the experiment.
        run_name: name of the run; None joins the one that is under way.
        limit: see :class:`TensorBoardPictures`.
        pred_key: see :func:`draw_item`.
        one_hot: see :func:`draw_item`.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment_name: str,
        run_name: str | None = None,
        limit: int = 4,
        pred_key: str = "pred",
        one_hot: bool = False,
    ) -> None:
        super().__init__(
            tracking_uri=tracking_uri,
            experiment_name=experiment_name,
            run_name=run_name,
            iteration_logger=self._log_pictures,
            epoch_log=False,
        )
        self.limit = limit
        self.pred_key = pred_key
        self.one_hot = one_hot

    def _log_pictures(self, engine: Engine) -> None:
        run: Any = self.cur_run  # MONAI sets it when the engine starts
        if engine.state.iteration <= self.limit:
            for name, page in _draw_batch(engine, self.pred_key, self.one_hot):
                file = f"pictures/{name}/epoch_{engine.state.epoch:04d}.png"
                self.client.log_image(run.info.run_id, page, artifact_file=file)


def end_mlflow_runs(handlers: Sequence[Any]) -> None:
    """End the MLflow runs of an evaluation, so that no later training joins them.

    MONAI does so for a training and an inference; the handler that it gives to a validator leaves that to the trainer.

    Args:
        handlers: handlers of the evaluator; only MLflow's are changed.

    Example:
        >>> end_mlflow_runs([])
    """
    for handler in handlers:
        if isinstance(handler, MLFlowHandler):
            handler.close()
