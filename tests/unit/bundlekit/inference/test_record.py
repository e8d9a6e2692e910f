"""The record of a run: what counts as finished, after a kill, by several processes and with other settings."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bundlekit.inference.record import RunRecord
from bundlekit.inputs.parts import find_state

NAMES = [f"{letter}.png" for letter in "abcdef"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def items(folder: Path) -> list[dict[str, str]]:
    return [{"image": str(folder / name)} for name in NAMES]


def names(found: list[dict[str, str]]) -> str:
    return "".join(Path(item["image"]).stem for item in found)


def segment(record: RunRecord, folder: Path, letters: str) -> None:
    record.begin()
    for letter in letters:
        output = record.folder / f"{letter}_seg.png"
        output.parent.mkdir(exist_ok=True)
        output.write_bytes(b"mask")
        record.keep_row({"image": letter})
        record.mark_finished(str(folder / f"{letter}.png"), [output])


def run_as(monkeypatch, number: int, count: int) -> None:
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setenv("WORLD_SIZE", str(count))


def test_a_run_that_was_killed_goes_on_and_one_that_ended_starts_anew(folder, capsys):
    segment(RunRecord(folder / "out"), folder, "ab")
    again = RunRecord(folder / "out")
    assert names(again.share(items(folder))) == "cdef"
    segment(again, folder, "cdef")
    assert [row["image"] for row in again.rows()] == [*"abcdef"]
    again.end(num_left_out=0)
    assert capsys.readouterr().out == (
        f"4 segmented, 2 finished before (--resume false segments them again), 0 left out: {folder}/out\n"
    )
    assert [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")] == []
    assert names(RunRecord(folder / "out").share(items(folder))) == "abcdef"


def test_with_files_left_out_the_others_stay_finished(folder):
    first = RunRecord(folder / "out")
    segment(first, folder, "abcde")
    first.end(num_left_out=1)
    assert names(RunRecord(folder / "out").share(items(folder))) == "f"


def test_without_resume_everything_is_segmented_again(folder):
    segment(RunRecord(folder / "out"), folder, "abc")
    anew = RunRecord(folder / "out", resume=False)
    assert names(anew.share(items(folder))) == "abcdef"
    segment(anew, folder, "f")
    assert anew.rows() == [{"image": "f"}]


def change_image(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"another image")


def touch_image(folder: Path) -> None:
    os.utime(folder / "b.png", ns=(1, 1))


def remove_output(folder: Path) -> None:
    (folder / "out/b_seg.png").unlink()


def cut_line(folder: Path) -> None:
    path = folder / "out/.finished-0.jsonl"
    text = path.read_text()
    path.write_text(text[: text.index("b_seg.png")])


@pytest.mark.parametrize("spoil", [change_image, touch_image, remove_output, cut_line])
def test_an_image_is_unfinished_when(folder, spoil):
    segment(RunRecord(folder / "out"), folder, "ab")
    spoil(folder)
    again = RunRecord(folder / "out")
    assert names(again.share(items(folder))) == "bcdef"
    segment(again, folder, "b")  # after half a line as well
    assert names(RunRecord(folder / "out").share(items(folder))) == "cdef"


def test_other_weights_and_settings_are_another_run(folder):
    weights = folder / "model.pt"
    weights.write_bytes(b"1")
    settings = {"threshold": 0.5, "window": [0, 1]}
    segment(RunRecord(folder / "out", ckpt_path=weights, settings=settings), folder, "abc")
    for ckpt_path, changed, left in (
        (weights, {}, "def"),
        (weights, {"threshold": 0.4}, "abcdef"),
        (None, {}, "abcdef"),
    ):
        record = RunRecord(folder / "out", ckpt_path=ckpt_path, settings=settings | changed)
        assert names(record.share(items(folder))) == left
        assert len(record.rows()) == 6 - len(left)
    weights.write_bytes(b"2")
    assert names(RunRecord(folder / "out", ckpt_path=weights, settings=settings).share(items(folder))) == "abcdef"


@pytest.mark.parametrize("image", [None, 3, ["a.png", None]])
def test_nonsense_in_a_list_is_not_finished(folder, image):
    segment(RunRecord(folder / "out"), folder, "a")
    assert not RunRecord(folder / "out").is_finished(image)


def test_several_files_of_one_image_and_names_relative_to_the_working_folder(folder, monkeypatch):
    record = RunRecord(folder / "out")
    record.mark_finished([str(folder / "a.png"), str(folder / "b.png")], [])
    monkeypatch.chdir(folder)
    again = RunRecord("out")
    assert again.is_finished(["a.png", "b.png"])
    assert not again.is_finished("a.png") and not again.is_finished(["b.png", "a.png"])


def test_processes_that_know_nothing_of_each_other_share_all_and_report_all(folder, monkeypatch):
    shares = []
    for number in range(2):
        run_as(monkeypatch, number, 2)
        record = RunRecord(folder / "out")
        shares.append(names(record.share(items(folder))))
        segment(record, folder, shares[-1][:2])
        record.end(num_left_out=0)
    assert shares == ["ace", "bdf"]
    assert [row["image"] for row in record.rows()] == [*"abcd"]
    assert len(list((folder / "out").glob(".finished-*"))) == 2  # the other one may still need them
    for number, left in enumerate(["e", "f"]):
        run_as(monkeypatch, number, 2)
        assert names(RunRecord(folder / "out").share(items(folder))) == left
    run_as(monkeypatch, 0, 1)
    assert names(RunRecord(folder / "out").share(items(folder))) == "ef"


def test_fewer_processes_remove_the_files_of_more(folder, monkeypatch):
    for number, letter in enumerate("abc"):
        run_as(monkeypatch, number, 3)
        segment(RunRecord(folder / "out"), folder, letter)
    (folder / "out/.finished-mine.jsonl").touch()
    run_as(monkeypatch, 1, 2)
    RunRecord(folder / "out", resume=False).begin()
    left = sorted(path.name for path in (folder / "out").glob(".finished-*"))
    assert left == [".finished-0.jsonl", ".finished-2.jsonl", ".finished-mine.jsonl"]


def test_a_restart_by_torchrun_goes_on_whatever_was_asked(folder, monkeypatch):
    segment(RunRecord(folder / "out"), folder, "a")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert names(RunRecord(folder / "out", resume=False).share(items(folder))) == "bcdef"


def test_a_report_has_what_another_process_adds_while_it_is_written(folder, monkeypatch):
    record = RunRecord(folder / "out")
    segment(record, folder, "a")
    written = []

    def write(rows: list) -> None:
        written.append([row["image"] for row in rows])
        if len(written) == 1:
            run_as(monkeypatch, 1, 2)
            segment(RunRecord(folder / "out"), folder, "b")

    record.write_report(write)
    assert written == [["a"], ["a", "b"]]


def test_lines_are_json_of_what_was_done(folder):
    record = RunRecord(folder / "out")
    segment(record, folder, "a")
    [line] = [json.loads(text) for text in (folder / "out/.finished-0.jsonl").read_text().split("\n") if text]
    assert line["image"] == [str(folder / "a.png")] and line["outputs"] == {"a_seg.png": len(b"mask")}
    assert line["state"] == [find_state(folder / "a.png")]


def test_a_later_run_of_other_settings_voids_what_it_wrote_over(folder):
    segment(RunRecord(folder / "out", settings={"threshold": 0.5}), folder, "abc")
    segment(RunRecord(folder / "out", settings={"threshold": 0.9}), folder, "a")
    again = RunRecord(folder / "out", settings={"threshold": 0.5})
    assert names(again.share(items(folder))) == "adef"


def test_an_output_that_was_cut_short_is_made_again(folder):
    segment(RunRecord(folder / "out"), folder, "abc")
    (folder / "out/b_seg.png").write_bytes(b"")
    assert names(RunRecord(folder / "out").share(items(folder))) == "bdef"


def test_rows_are_of_the_images_as_they_are(folder, monkeypatch):
    run_as(monkeypatch, 1, 2)
    segment(RunRecord(folder / "out"), folder, "ab")
    run_as(monkeypatch, 0, 1)
    (folder / "a.png").write_bytes(b"another image")
    (folder / "b.png").unlink()
    record = RunRecord(folder / "out")
    left = [item for item in items(folder) if Path(item["image"]).exists()]
    assert names(record.share(left)) == "acdef" and record.rows() == []
    segment(record, folder, "a")
    assert [row["image"] for row in record.rows()] == ["a"]
