"""Reports centre, diameter and area of the masks of a run, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import convert_to_numpy
from skimage.measure import regionprops

from ..errors import InputNote
from ..files import write_atomically
from ..inference.record import RunRecord
from ..processes import print_line
from .tables import write_csv

__all__ = ["MaskReport", "measure_mask"]

COLUMNS = ("image", "found", "centre_x_px", "centre_y_px", "diameter_px", "area_px")


def measure_mask(mask: np.ndarray) -> dict[str, Any]:
    """Whether anything is above 0 in a mask, its centre of mass, the diameter of the circle of its area, and its area.

    Args:
        mask: (x, y).

    Returns:
        ``found``, ``centre_x_px``, ``centre_y_px`` (0 is the centre of the first pixel), ``diameter_px`` and
        ``area_px``; None for what is not there.

    Example:
        >>> mask = np.zeros((6, 5))
        >>> mask[1:3, 2:4] = 1
        >>> list(measure_mask(mask).values())  # 4 / sqrt(pi)
        [True, 1.5, 2.5, 2.257, 4]
    """
    regions = regionprops((mask > 0).astype(np.uint8))
    if not regions:
        return dict(zip(COLUMNS[1:], (False, None, None, None, 0), strict=True))
    x, y = (round(float(value), 2) for value in regions[0].centroid)
    diameter = round(float(regions[0].equivalent_diameter_area), 3)
    return dict(zip(COLUMNS[1:], (True, x, y, diameter, int(regions[0].area)), strict=True))


class MaskReport:
    """Write ``report.csv`` and ``report.json``, a row for each image of a run that segments one object in each.

    An image without the object has "no" in the column "found" and is named on stderr as well.

    Args:
        record: record of the run, with the rows of all its processes; the report is written to its folder.
        what: name of the object.

    Example:
        >>> MaskReport(RunRecord("eval"), "optic disc").record.folder.as_posix()
        'eval'
    """

    def __init__(self, record: RunRecord, what: str) -> None:
        self.record = record
        self.what = what

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
        engine.add_event_handler(Events.COMPLETED, lambda: self.record.write_report(self._write))

    def _measure(self, engine: Engine) -> None:
        items: Any = engine.state.output
        for item in items:
            path = str(item["image"].meta["filename_or_obj"])
            row = {"image": Path(path).name, **measure_mask(convert_to_numpy(item["pred"])[0])}
            self.record.keep_row(row)
            if not row["found"]:
                remedy = f"check the image: it may not show the {self.what}, or be too dark"
                note = InputNote(path, f"no {self.what} found", "one", remedy)
                print_line(f"note: {note}")

    def _write(self, rows: list[dict[str, Any]]) -> None:
        table = [{**row, "found": "yes" if row["found"] else "no"} for row in rows]
        write_csv(self.record.folder / "report.csv", table, COLUMNS)
        text = json.dumps(rows, indent=1) + "\n"
        write_atomically(self.record.folder / "report.json", lambda part: part.write_text(text, encoding="utf-8"))
