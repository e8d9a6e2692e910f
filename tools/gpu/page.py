"""The page OUT/gpu.md: on what it ran, which checks passed, and all tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundlekit.files import write_atomically
from studies.markdown import markdown_table
from tools.gpu.results import Results
from tools.gpu.steps import Step

__all__ = ["page", "write_page"]

VERDICTS = {True: "passed", False: "**failed**", None: "not tried"}
REHEARSAL = (
    "**A rehearsal on a CPU.** It shows that the program works; no time or amount of memory below is a GPU's, and what "
    "needs a GPU was not tried. In float32 both sides of a comparison were computed on the same CPU."
)
SMALL = "Sizes are those of a rehearsal (`--sizes small`), far smaller than in use."


def heading(results: Results) -> list[str]:
    machine, settings = results.content["machine"], results.content["settings"]
    lines = ["# Run on " + machine.get("device", "an unknown device"), ""]
    lines += [REHEARSAL, ""] if settings.get("device") == "cpu" else []
    lines += [SMALL, ""] if settings.get("sizes") == "small" else []
    return [*lines, markdown_table(["", ""], machine.items()), ""]


def counts(entry: dict[str, Any]) -> list[int]:
    verdicts = [check["passed"] for check in entry["checks"].values()]
    return [verdicts.count(verdict) for verdict in VERDICTS]


def summary(results: Results, steps: Sequence[Step]) -> str:
    rows = []
    for step in steps:
        entry = results.entry(step.name)
        how = f"{entry['status']}{', ' if entry['why'] else ''}{entry['why']}"
        rows.append([step.name, how, f"{entry['seconds']:.0f}", *counts(entry)])
    return markdown_table(["step", "", "seconds", "checks passed", "failed", "not tried"], rows)


def of_step(name: str, entry: dict[str, Any]) -> list[str]:
    """The section of one step; nothing where it has found nothing yet."""
    if not entry["checks"] and not entry["tables"]:
        return []
    lines = [f"## {name}", ""]
    checks = [[what, VERDICTS[check["passed"]], check["found"]] for what, check in entry["checks"].items()]
    lines += [markdown_table(["check", "", "found"], checks), ""] if checks else []
    for title, table in entry["tables"].items():
        rows = [[first, *row["cells"]] for first, row in table["rows"].items()]
        lines += [f"{title}:", "", markdown_table(table["columns"], rows), ""]
    return lines


def page(results: Results, steps: Sequence[Step]) -> str:
    """The page's text in Markdown.

    Args:
        results: of all steps so far.
        steps: those that were asked for, in order.
    """
    lines = [*heading(results), summary(results, steps), ""]
    for step in steps:
        lines += of_step(step.name, results.entry(step.name))
    return "\n".join(lines).rstrip() + "\n"


def write_page(results: Results, steps: Sequence[Step]) -> None:
    """Write ``gpu.md`` next to the results."""
    text = page(results, steps)
    write_atomically(results.path.with_name("gpu.md"), lambda part: part.write_text(text, encoding="utf-8"))
