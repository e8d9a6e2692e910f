"""What the steps have found, in one JSON file that is replaced as a whole after each line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bundlekit.errors import InputError, describe
from bundlekit.files import write_atomically

__all__ = ["DONE", "FAILED", "NOT_DONE", "RUNNING", "STOPPED", "Report", "Results"]

DONE, FAILED, STOPPED, RUNNING, NOT_DONE = "done", "failed", "stopped", "running", "not done"
EMPTY: dict[str, Any] = {"settings": {}, "machine": {}, "steps": {}}


class Results:
    """The results' file; one process writes at a time, the program between steps and a step while it runs.

    Args:
        path: the file; need not exist.

    Raises:
        InputError: where it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = {**EMPTY, "steps": {}}
        if path.exists():
            try:
                self.content = json.loads(path.read_text(encoding="utf-8"))
                if not self.content.keys() >= EMPTY.keys():
                    raise ValueError(f"no {', '.join(EMPTY.keys() - self.content.keys())}")
            except (ValueError, AttributeError) as error:
                found = f"cannot be read ({describe(error)})"
                raise InputError(path, found, "results of this program", "choose another --output") from error

    def save(self) -> None:
        text = json.dumps(self.content, indent=1)
        write_atomically(self.path, lambda part: part.write_text(text, encoding="utf-8"))

    def entry(self, step: str) -> dict[str, Any]:
        """What is known of a step, to be changed in place."""
        empty = {"status": NOT_DONE, "why": "", "seconds": 0.0, "checks": {}, "tables": {}, "values": {}, "begun": {}}
        return self.content["steps"].setdefault(step, empty)

    def problems(self, steps: Sequence[str]) -> list[str]:
        """One line for each check that failed and for each step that has not ended well."""
        lines = []
        for step in steps:
            entry = self.entry(step)
            for name, check in entry["checks"].items():
                if check["passed"] is False:
                    lines.append(f"{step}: check failed: {name}: {check['found']}")
            if entry["status"] != DONE:
                lines.append(f"{step}: {entry['status']}{': ' if entry['why'] else ''}{entry['why']}")
        return lines

    def is_finished(self, step: str) -> bool:
        """Whether a step needs no further run: it has ended and none of its checks has failed."""
        return not self.problems([step])


class Report:
    """What one step finds; each line is on the disk as soon as it is known.

    Args:
        results: the file.
        step: name of the step.
    """

    def __init__(self, results: Results, step: str) -> None:
        self.results = results
        self.values = results.entry(step)["values"]
        self._entry = results.entry(step)

    def check(self, name: str, passed: bool | None, found: str) -> None:
        """Keep whether something holds.

        Args:
            name: what has to hold.
            passed: whether it does; None where it cannot be tried on this device.
            found: figures, or why it was not tried.
        """
        self._entry["checks"][name] = {"passed": None if passed is None else bool(passed), "found": found}
        self.results.save()

    def needs_gpu(self, name: str) -> None:
        """Keep that a check was not made because there is no GPU."""
        self.check(name, None, "needs a GPU")

    def keep(self, name: str, value: Any) -> None:
        """Keep a value for other steps."""
        self.values[name] = value
        self.results.save()

    def row(self, table: str, columns: Sequence[str], name: str, cells: Sequence[object], known: bool = True) -> None:
        """Keep a row of a table.

        Args:
            table: its title.
            columns: names of the columns, the first one included.
            name: the first cell, by which a later run finds the row.
            cells: the others.
            known: whether they need not be measured again.
        """
        rows = self._entry["tables"].setdefault(table, {"columns": list(columns), "rows": {}})["rows"]
        rows[name] = {"cells": [str(cell) for cell in cells], "known": known}
        self.results.save()

    def measure(
        self, table: str, columns: Sequence[str], name: str, call: Callable[[], Sequence[object]], required: bool = True
    ) -> None:
        """Keep a row whose cells ``call`` measures, unless an earlier run has; go on where it fails.

        A row in which the process of an earlier run ended is left out.

        Args:
            table: title.
            columns: names of the columns.
            name: first cell.
            call: gives the others.
            required: whether its failure is a check that failed.
        """
        known = self._entry["tables"].get(table, {}).get("rows", {}).get(name, {}).get("known", False)
        if known:
            return
        begun, key = self._entry["begun"], f"{table}: {name}"
        if begun.get(key):
            self._fail(table, columns, name, "the process ended in it", required)
            return
        begun[key] = True
        self.results.save()
        try:
            cells = call()
        except Exception as error:  # whatever the device, the network or the library raises
            self._fail(table, columns, name, describe(error), required)
        else:
            self._entry["checks"].pop(key, None)
            self.row(table, columns, name, cells)
        begun[key] = False
        self.results.save()

    def _fail(self, table: str, columns: Sequence[str], name: str, reason: str, required: bool) -> None:
        self.row(table, columns, name, [f"failed: {reason}"] + ["-"] * (len(columns) - 2), known=False)
        if required:
            self.check(f"{table}: {name}", False, reason)
