"""Reports that grow by their new rows only: the same bytes as written at once, and work in proportion to the rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bundlekit.inference import finished, record
from bundlekit.inference.record import RunRecord
from bundlekit.reports.growing import append_to_csv, append_to_json

ROWS = [{"image": f"{i}.nii", "right": {"ml": i / 2}, "note": None if i % 2 else 'a "word", é'} for i in range(5)]


def to_json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"


@pytest.mark.parametrize("make", [lambda rows: rows, lambda rows: {"unit": "ml", "volumes": rows}])
def test_json_is_that_of_all_rows_written_at_once(tmp_path, make):
    path = tmp_path / "a.json"
    path.write_text(to_json(make(ROWS[:1])))
    assert append_to_json(path, ROWS[1:2]) and append_to_json(path, []) and append_to_json(path, ROWS[2:])
    assert path.read_text() == to_json(make(ROWS))


@pytest.mark.parametrize("content", [None, "", "]\n", "[]\n", '{"volumes": []}\n', '[\n {"image": 1}', "[1, 2]"])
def test_a_file_that_cannot_be_continued_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert not append_to_json(path, ROWS)
    assert (path.read_text() if path.exists() else None) == content


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_keeps_its_columns_and_line_ends(tmp_path, ending):
    path, rows = tmp_path / "a.csv", [{"b": 'x, "y"', "a": 1}, {"a": None, "b": "é"}]
    with open(path, "w", newline="") as file:
        csv.DictWriter(file, ["a", "b"], lineterminator=ending).writeheader()
    append_to_csv(path, rows)
    assert path.read_bytes().decode() == ending.join(["a,b", '1,"x, ""y"""', ",é", ""])


class Counts:
    """A run over ``num_images`` images that extends a report after each, and how much work that was."""

    def __init__(self, folder: Path, num_images: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_parsed = self.num_stats = self.num_rows_written = 0
        folder.mkdir()
        parse, unchanged = finished._parse, record._is_unchanged

        def count_parsed(text: bytes) -> list:
            lines = parse(text)
            self.num_parsed += len(lines)
            return lines

        def count_stats(line: dict) -> bool:
            self.num_stats += 1
            return unchanged(line)

        monkeypatch.setattr(finished, "_parse", count_parsed)
        monkeypatch.setattr(record, "_is_unchanged", count_stats)
        run = RunRecord(folder / "out")
        self.report: list = []
        run.begin()
        for i in range(num_images):
            (folder / f"{i:03d}.png").touch()
            run.keep_row({"row": i})
            run.extend_report(self.write, self.append)
            assert self.report == [{"row": j} for j in range(i + 1)]  # complete after every image
            run.mark_finished(str(folder / f"{i:03d}.png"), [])
        run.write_report(self.write)
        assert self.report == [{"row": j} for j in range(num_images)]

    def write(self, rows: list) -> None:
        self.num_rows_written += len(rows)
        self.report = list(rows)

    def append(self, rows: list) -> None:
        self.num_rows_written += len(rows)
        self.report += rows


def test_the_work_of_a_run_grows_as_its_rows(tmp_path, monkeypatch):
    """Twice as many images are twice as many lines read, files looked at and rows written."""
    work = {}
    for num_images in (20, 40):
        with monkeypatch.context() as patch:
            counts = Counts(tmp_path / str(num_images), num_images, patch)
        assert counts.num_parsed == num_images  # each line once
        assert counts.num_rows_written == 2 * num_images  # as it came, and in order at the end
        work[num_images] = counts.num_stats
    assert work[40] <= 2 * work[20] + 1


def finish(run: RunRecord, path: Path, row: object) -> None:
    path.touch()
    run.keep_row(row)
    run.mark_finished(str(path), [])


def test_rows_of_other_processes_come_with_the_next_one_of_the_first(tmp_path, monkeypatch):
    first, second = RunRecord(tmp_path / "out"), RunRecord(tmp_path / "out")
    report: list = []

    def as_process(number: int) -> None:
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", "2")

    as_process(0)
    first.keep_row("a")
    first.extend_report(report.extend, report.extend)
    finish(first, tmp_path / "a.png", "more of a")
    as_process(1)
    second.keep_row("b")
    second.extend_report(report.extend, report.extend)  # left to the first process
    finish(second, tmp_path / "b.png", "more of b")
    as_process(0)
    assert report == ["a"]
    first.keep_row("c")
    first.extend_report(report.extend, report.extend)
    assert report == ["a", "more of a", "b", "more of b", "c"]
    assert first.rows() == ["a", "more of a", "b", "more of b", "c"]


def test_a_row_that_is_replaced_makes_the_report_be_written_again(tmp_path):
    finish(RunRecord(tmp_path / "out"), tmp_path / "a.png", "old")
    (tmp_path / "b.png").touch()
    run, written, appended = RunRecord(tmp_path / "out"), [], []
    for row, name in (("b", "b.png"), ("new", "a.png"), ("c", None)):  # the output of a.png was lost
        run.keep_row(row)
        run.extend_report(written.append, appended.append)
        if name:
            run.mark_finished(str(tmp_path / name), [])
    assert written == [["old", "b"], ["new", "b", "c"]] and appended == [["new"]]


def test_a_run_that_begins_again_from_the_first_image_forgets_what_was_read(tmp_path):
    run = RunRecord(tmp_path / "out")
    finish(run, tmp_path / "a.png", "a")
    finish(run, tmp_path / "b.png", "b")
    assert run.rows() == ["a", "b"]
    other = RunRecord(tmp_path / "out", resume=False)
    other.begin()
    assert run.rows() == []
    finish(other, tmp_path / "b.png", "b again")
    finish(other, tmp_path / "c.png", "c")
    assert run.rows() == ["b again", "c"]
