"""Reports volume (ml), area (cm²) and density (HU) of segmented lungs, as tables and as a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes

from ..errors import InputNote
from ..files import write_atomically
from ..inference.record import RunRecord
from ..inputs.volumes import name_volume
from ..processes import print_line
from ..transforms.axes import to_ras
from ..transforms.lungs import LEFT, RIGHT
from .growing import append_to_csv, append_to_json
from .tables import write_csv

__all__ = ["LungReport", "measure_lungs", "save_lung_picture"]

_LUNGS = {"right": (RIGHT,), "left": (LEFT,), "both": (RIGHT, LEFT)}
_WINDOW_HU = (-1350, 150)  # in which radiologists look at lungs
_COLOURS = ListedColormap([(0.90, 0.62, 0.0), (0.34, 0.71, 0.91)])  # Okabe and Ito's orange and sky blue
_INCHES = (10.0, 5.5)


def measure_lungs(labels: np.ndarray, hu: np.ndarray, affine: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Volume, largest axial area and mean Hounsfield units of the right lung, the left lung and both together.

    ``volume_ml`` is the number of voxels times their volume |det A|; ``largest_axial_area_cm2`` the largest number of
    pixels in one slice across the body axis times the area of the parallelogram that they are, |a x b|.

    Args:
        labels: 1 where the right lung is, 2 where the left one is.
        hu: Hounsfield units of the same voxels.
        affine: 4 x 4 matrix from voxel index to position in mm.

    Returns:
        By "right", "left" and "both": ``volume_ml``, ``largest_axial_area_cm2`` and ``mean_hu``, None of no voxel.

    Example:
        >>> labels = np.zeros((4, 4, 2), int)
        >>> labels[:2, :, 0], labels[2, 0, 1] = 1, 2
        >>> measured = measure_lungs(labels, np.full((4, 4, 2), -800), np.diag([10.0, 10, 5, 1]))
        >>> measured["right"]  # 8 voxels of 0.5 ml, 8 pixels of 1 cm2
        {'volume_ml': 4.0, 'largest_axial_area_cm2': 8.0, 'mean_hu': -800.0}
        >>> measured["both"]["volume_ml"]
        4.5
    """
    labels, ras = to_ras(labels, affine)
    hu, _ = to_ras(hu, affine)
    voxel_ml = abs(np.linalg.det(ras[:3, :3])) / 1000
    pixel_cm2 = np.linalg.norm(np.cross(ras[:3, 0], ras[:3, 1])) / 100
    measured: dict[str, dict[str, float | None]] = {}
    for name, values in _LUNGS.items():
        lung = np.isin(labels, values)
        per_slice = np.count_nonzero(lung, axis=(0, 1))
        measured[name] = {
            "volume_ml": round(float(per_slice.sum() * voxel_ml), 3),
            "largest_axial_area_cm2": round(float(per_slice.max() * pixel_cm2), 3),
            "mean_hu": round(float(hu[lung].mean(dtype=float)), 1) if per_slice.any() else None,
        }
    return measured


def save_lung_picture(
    labels: np.ndarray, hu: np.ndarray, affine: np.ndarray, path: str | os.PathLike, title: str = ""
) -> None:
    """Write a PNG of the axial and the coronal slice with most lung, the lungs tinted, in true proportions.

    The patient's right is on the left of both, the front above in the axial slice, the head in the coronal one.

    Args:
        labels, hu, affine: as for :func:`measure_lungs`.
        path: file to write; it appears when it is complete.
        title: line above the slices.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "lungs.png")
        >>> save_lung_picture(np.ones((8, 8, 4), int), np.zeros((8, 8, 4)), np.diag([1.0, 1, 2, 1]), file)
        >>> file.stat().st_size > 0
        True
    """
    labels, ras = to_ras(labels, affine)
    hu, _ = to_ras(hu, affine)
    x_mm, y_mm, z_mm = voxel_sizes(ras)
    j, k = (_fullest(labels, axis) for axis in (1, 2))
    figure = Figure(figsize=_INCHES, layout="constrained")
    figure.suptitle(title)
    hu, labels = hu[::-1], labels[::-1]
    panels = {
        "axial": (hu[:, :, k], labels[:, :, k], y_mm / x_mm),
        "coronal": (hu[:, j, :], labels[:, j, :], z_mm / x_mm),
    }
    for axes, (name, (scan, lungs, aspect)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.imshow(scan.T, "gray", aspect=aspect, origin="lower", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1])
        tint = np.ma.masked_equal(lungs.T, 0)
        axes.imshow(tint, _COLOURS, aspect=aspect, origin="lower", vmin=RIGHT, vmax=LEFT, alpha=0.4)
        axes.text(0.02, 0.98, "R", color="white", transform=axes.transAxes, va="top")
        axes.set(title=name, xticks=[], yticks=[])
    write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=120))


def _fullest(labels: np.ndarray, axis: int) -> int:
    """The slice across an axis with most lung, or the middle one."""
    counts = np.count_nonzero(labels, axis=tuple({0, 1, 2} - {axis}))
    return int(np.argmax(counts)) if counts.any() else labels.shape[axis] // 2


def _note(path: str, labels: np.ndarray, left_out_ml: Mapping[str, float]) -> str | None:
    """What to tell of a volume in which not both lungs were found."""
    missing = [name for name, value in (("right", RIGHT), ("left", LEFT)) if not (labels == value).any()]
    if not missing:
        return None
    if len(missing) == 2:
        remedy = "check the volume: it may not show the lungs, or its values may not be Hounsfield units"
        return str(InputNote(path, "no lung was found in it", "one or two lungs", remedy))
    found = f"no {missing[0]} lung was found in it"
    small_ml = left_out_ml[missing[0]]
    if small_ml:
        found += f" ({small_ml:.0f} ml on that side were left out, in pieces of less than a tenth of the other one)"
    return str(InputNote(path, found, "two lungs", "check the volume, unless the patient has only one lung"))


class LungReport:
    """Measure the lungs of each volume that an evaluator segments, and say where one or both are missing.

    ``report.csv`` has a line for the right lung, the left lung and both of each volume, ``report.json`` the same by
    volume. Both are complete after every volume, of which only the new rows are written; where several processes share
    a run, after every volume of the first process, and at the end of each. ``<name>_report.png`` shows a volume.

    Args:
        record: record of the run, with the measurements of all its processes; the report is written to its folder.
        enabled: whether to write the report; a volume in which a lung is missing is always reported.

    Raises:
        KeyError: where the evaluator's items lack "hu", or "pred" and "left_out_ml" from
            :class:`bundlekit.transforms.lungs.SeparateLungsd`.
    """

    def __init__(self, record: RunRecord, enabled: bool = True) -> None:
        self.record = record
        self.enabled = enabled

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, lambda: self.record.write_report(self._write_tables))

    def __call__(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for inputs, outputs in zip(batch, output, strict=True):
            self._add(inputs["hu"], outputs["pred"], outputs["left_out_ml"])

    def _add(self, hu: MetaTensor, labels: MetaTensor, left_out_ml: Mapping[str, float]) -> None:
        path = hu.meta["filename_or_obj"]
        values, affine = (np.asarray(labels[0]), np.asarray(hu[0])), np.asarray(labels.affine, float)
        note = _note(path, values[0], left_out_ml)
        if note:
            print_line(f"warning: {note}")
        if not self.enabled:
            return
        measured = measure_lungs(*values, affine)
        for name in _LUNGS:
            measured[name]["left_out_ml"] = round(left_out_ml.get(name, sum(left_out_ml.values())), 3)
        self.record.keep_row({"image": Path(path).name, **measured, "note": note})
        name = name_volume(path)
        title = ", ".join(f"{lung} {measured[lung]['volume_ml']:.0f} ml" for lung in _LUNGS)
        save_lung_picture(*values, affine, self.record.folder / f"{name}_report.png", f"{name}: {title}")
        self.record.extend_report(self._write_tables, self._append)

    def _append(self, volumes: list[dict[str, Any]]) -> None:
        tables = [self.record.folder / name for name in ("report.json", "report.csv")]
        if all(table.is_file() for table in tables) and append_to_json(tables[0], volumes):
            append_to_csv(tables[1], _to_rows(volumes))
        else:  # somebody has removed or changed a file during the run
            self._write_tables(self.record.rows())

    def _write_tables(self, volumes: list[dict[str, Any]]) -> None:
        folder = self.record.folder
        text = json.dumps({"volumes": volumes}, indent=1, allow_nan=False) + "\n"
        write_atomically(folder / "report.json", lambda part: part.write_text(text, encoding="utf-8"))
        write_csv(folder / "report.csv", _to_rows(volumes))


def _to_rows(volumes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the table: one for each lung, and one for both."""
    return [{"image": volume["image"], "lung": lung, **volume[lung]} for volume in volumes for lung in _LUNGS]
