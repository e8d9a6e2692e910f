"""Plots the curves of a training, and writes the scores of all images as JSON and as a table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from monai.data import decollate_batch
from monai.handlers import MetricsSaver
from monai.utils import string_list_all_gather

from ..files import write_atomically
from .tables import align_columns

__all__ = ["MetricsJson", "format_table", "plot_history", "print_table"]


def _draw(axes: Axes, curves: Mapping[str, Sequence[tuple[int, float | None]]], title: str) -> None:
    for name, points in curves.items():
        epochs, values = np.array(points, float).reshape(-1, 2).T
        axes.plot(epochs, values, marker="o" if len(points) <= 50 else None, markersize=3, label=name)
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()


def plot_history(history_path: str | os.PathLike, png_path: str | os.PathLike) -> None:
    """Draw a training's loss and its validation metrics over the epochs, side by side.

    Args:
        history_path: JSON file with ``{"loss": [[epoch, value], ...], "metrics": {name: [[epoch, value], ...]}}`` and,
            where the loss is a sum, ``"terms"`` in the form of the metrics; a null value leaves a gap.
        png_path: picture to write; it appears when it is complete.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> history = {"loss": [[1, 0.9], [2, 0.5]], "metrics": {"val_dice": [[2, 0.7]]}}
        >>> _ = (folder / "history.json").write_text(json.dumps(history))
        >>> plot_history(folder / "history.json", folder / "history.png")
        >>> (folder / "history.png").stat().st_size > 0
        True
    """
    history = json.loads(Path(history_path).read_text(encoding="utf-8"))
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, {"training loss": history["loss"], **history.get("terms", {})}, "loss")
    _draw(right, history["metrics"], "validation")
    write_atomically(png_path, lambda part: figure.savefig(part, format="png", dpi=120))


def _plain(value: Any) -> Any:
    """Numbers and nested lists that JSON can hold; NaN and infinity become None."""
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return float(value) if math.isfinite(value) else None


def _image_meta(batch: Any) -> list[dict[str, Any]]:
    items = decollate_batch(batch) if isinstance(batch, Mapping) else batch
    return [item["image"].meta for item in items]


class MetricsJson(MetricsSaver):
    """Write the metrics of an evaluation, and of each of its images, to one JSON file.

    The file is ``{"metrics": {name: value}, "images": [{"image": file name, name: value, ...}, ...], "num_images": n}``
    and complete at any moment. A detail with several values an image becomes ``name`` (mean of those that are not NaN)
    and ``name_<label>``. What is not finite is null. Attach it to an evaluator whose images are ``MetaTensor`` under
    the key "image" and whose metrics keep a row for each image (``save_details=True``).

    Args:
        output_dir: folder to write to, created if need be.
        name: name of the file.
        labels: names of all classes, the background first; details of one column less are those without background.
            None numbers the columns from 0.

    Raises:
        ValueError: after an epoch, if a detail does not have a row for each image, or a column for each label.

    Example:
        >>> MetricsJson("eval", labels=["cell", "membrane"]).path.as_posix()
        'eval/metrics.json'
    """

    def __init__(
        self, output_dir: str | os.PathLike, name: str = "metrics.json", labels: Sequence[str] | None = None
    ) -> None:
        super().__init__(save_dir=str(output_dir), metric_details="*", batch_transform=_image_meta)
        self.path = Path(output_dir, name)
        self.labels = labels

    def __call__(self, engine: Engine) -> None:
        names = [Path(name).name for name in string_list_all_gather(self._filenames)]
        if idist.get_rank() != self.save_rank:
            return
        rows: list[dict[str, Any]] = [{"image": name} for name in names]
        for metric, details in getattr(engine.state, "metric_details", {}).items():
            values = np.atleast_1d(torch.as_tensor(details).cpu().double().numpy())
            for row, cells in zip(rows, self._table(metric, values, len(rows)), strict=True):
                row.update(self._columns(metric, cells))
        content = {
            "metrics": {name: _plain(value) for name, value in engine.state.metrics.items()},
            "images": rows,
            "num_images": len(rows),
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_atomically(self.path, lambda part: part.write_text(text, encoding="utf-8"))

    def _table(self, metric: str, values: np.ndarray, num_images: int) -> np.ndarray:
        table = values[:, None] if values.ndim == 1 else values
        num_columns = table.shape[-1]
        fits = self.labels is None or num_columns in (1, len(self.labels) - 1, len(self.labels))
        if table.ndim != 2 or len(table) != num_images or not fits:
            classes = "" if self.labels is None else f" and a column for each of {', '.join(self.labels)}"
            raise ValueError(
                f"the details of {metric} have shape {values.shape}; expected a row for each of {num_images} images"
                f"{classes}; give this metric save_details=False"
            )
        return table

    def _columns(self, metric: str, cells: np.ndarray) -> dict[str, float | None]:
        known = cells[~np.isnan(cells)]
        columns = {metric: _plain(known.mean()) if known.size else None}
        if len(cells) > 1:
            labels = range(len(cells)) if self.labels is None else self.labels[-len(cells) :]
            columns |= {f"{metric}_{label}": _plain(v) for label, v in zip(labels, cells, strict=True)}
        return columns


def _row(name: str, statistic: Callable, columns: Sequence[Sequence[float | None]]) -> list[Any]:
    known = [[value for value in column if value is not None] for column in columns]
    return [name, *(statistic(values) if values else None for values in known)]


def format_table(metrics: Mapping[str, Any]) -> str:
    """A row for each image, then mean and standard deviation (of the population, divided by n) of each column.

    Values that are null show as "-" and do not count.

    Args:
        metrics: what :class:`MetricsJson` writes.

    Example:
        >>> scores = {"a.png": 0.5, "b.png": 1.0, "c.png": None}
        >>> images = [{"image": name, "dice": dice} for name, dice in scores.items()]
        >>> print(format_table({"metrics": {"dice": 0.75}, "images": images, "num_images": 3}))
        image    dice
        a.png  0.5000
        b.png  1.0000
        c.png       -
        mean   0.7500
        std    0.2500
    """
    images = metrics["images"]
    names = list(dict.fromkeys(key for image in images for key in image if key != "image"))
    rows = [[image["image"], *(image.get(name) for name in names)] for image in images]
    columns = [[row[i] for row in rows] for i in range(1, len(names) + 1)]
    rows += [_row("mean", np.mean, columns), _row("std", np.std, columns)]
    cells = [["image", *names]] + [[r[0], *("-" if v is None else f"{v:.4f}" for v in r[1:])] for r in rows]
    return align_columns(cells)


def print_table(metrics_path: str | os.PathLike) -> None:
    """Print the table of a file that :class:`MetricsJson` wrote.

    Args:
        metrics_path: the file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "metrics.json")
        >>> _ = path.write_text('{"metrics": {}, "images": [{"image": "a.png", "dice": 0.5}], "num_images": 1}')
        >>> print_table(path)
        image    dice
        a.png  0.5000
        mean   0.5000
        std    0.0000
    """
    print(format_table(json.loads(Path(metrics_path).read_text(encoding="utf-8"))))
