"""Seconds and memory of an image: processes are measured, start-up is separated, each bundle has its usual image."""

from __future__ import annotations

import sys

import pytest

from tools.bench import inference
from tools.bench.inference import Run

MIB = 2**20


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_memory_of_a_process(tmp_path):
    assert (
        200
        < inference.run(python(f"block = b'x' * {200 * MIB}; import time; time.sleep(0.2)"), tmp_path).peak_mib
        < 240
    )


def test_memory_of_processes_at_the_same_time_is_added(tmp_path):
    child = f"block = b'x' * {100 * MIB}; print(1, flush=True); input()"
    parent = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
block = b"x" * {150 * MIB}
time.sleep(0.5)
child.communicate(b"1")
"""
    assert 250 < inference.run(python(parent), tmp_path).peak_mib < 300


def test_a_failing_command_is_reported_with_its_output(tmp_path):
    with pytest.raises(SystemExit, match=r"no such thing\n\nfailed with exit code 3: "):
        inference.run(python("import sys; print('no such thing'); sys.exit(3)"), tmp_path)


def test_start_up_and_time_of_an_image_are_separated():
    # 5 s of start-up and 2 s an image; 6 s and 1 s; 4 s and 3 s
    pairs = [(Run(7, 500), Run(15, 600)), (Run(7, 700), Run(11, 400)), (Run(7, 500), Run(19, 500))]
    cells = inference.table_row("bundle", "64 x 64 px", 5, pairs).strip("| ").split(" | ")
    assert cells == ["bundle", "64 x 64 px", "2.00 (1.00 to 3.00)", "5.0 (4.0 to 6.0)", "600 (500 to 700)"]


def test_every_bundle_has_its_usual_image():
    assert sorted(inference.CASES) == sorted(path.name for path in inference.BUNDLES.iterdir())


def test_copies_keep_what_follows_the_number(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("000_T1.nii.gz", "000_T2.nii.gz"):
        (tmp_path / "images" / name).write_text(name)
    inference.copy_images(tmp_path / "images", tmp_path / "many", 2)
    found = {path.name: path.read_text() for path in (tmp_path / "many").iterdir()}
    assert found == {f"00{number}_{word}.nii.gz": f"000_{word}.nii.gz" for number in (0, 1) for word in ("T1", "T2")}


@pytest.mark.slow
def test_one_bundle(capsys, monkeypatch):
    monkeypatch.setitem(inference.CASES, "membrane_em_segmentation", inference.Case(64, "{0} x {1} px", 2))
    cells = inference.measure("membrane_em_segmentation", 1, None).strip("| ").split(" | ")
    assert cells[:2] == ["membrane_em_segmentation", "64 x 64 px"] and len(cells) == 5
    assert 100 < float(cells[4].split()[0]) < 4000
