"""Two processes that are connected: the first one checks, both know the result, and both end together."""

from __future__ import annotations

import json

import numpy as np
import tifffile
from PIL import Image

from tests.commands import start_ranks

SCRIPT = """
import json, sys
from pathlib import Path
from bundlekit.inference.record import RunRecord
from bundlekit.inputs import picture_files, pictures
from bundlekit.inputs.pictures import PictureChecks
from bundlekit.processes import connect, rank_and_world_size

folder = Path(sys.argv[1])
connect()
number = rank_and_world_size()[0]
read, read_header = picture_files.read_picture, picture_files.read_picture_header
pictures.read_picture = lambda path, *more: (seen.append(["values", Path(path).name]), read(path, *more))[1]
pictures.read_picture_header = lambda path, *more: (
    seen.append(["header", Path(path).name]), read_header(path, *more)
)[1]
known = {}
for what in ("missing", "training", "inference"):
    if number == 0:
        print(f"== {what}", file=sys.stderr, flush=True)
    seen, code = [], 0
    checks = PictureChecks(spatial_dims=2, channels=1, label_values=[0, 1])
    if what == "inference":
        items = checks.images(folder / "images", RunRecord(folder / "out"))
    else:
        items = checks.section(folder / "gone" if what == "missing" else folder, "training")
    try:
        checks.start(items)
        if what == "inference":  # leaves the group of processes
            checks.finish()
    except SystemExit as stop:
        code = stop.code
    known[what] = {"names": [Path(item["image"]).name for item in items], "seen": seen, "code": code}
(folder / f"{number}.json").write_text(json.dumps(known))
"""


def test_the_first_process_checks_for_both(make_pairs, tmp_path):
    make_pairs(tmp_path, "cut.png", "wrong.png", good=3)
    whole = (tmp_path / "images/good0.png").read_bytes()
    (tmp_path / "images/wrong.png").write_bytes(whole)
    cut = tmp_path / "images/cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:500])  # of about a thousand
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / "labels/wrong.png")
    tifffile.imwrite(tmp_path / "images/colours.tif", np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    (tmp_path / "run.py").write_text(SCRIPT)
    ranks = start_ranks(2, tmp_path / "run.py", tmp_path)
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    lines = [
        line for line in "".join(errors).splitlines() if line.startswith(("== ", "left out: ", "error: ", "note: "))
    ]
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))

    nothing = {"names": [], "seen": [], "code": 1}  # both end, and one of them says why
    assert first["missing"] == second["missing"] == nothing
    assert lines[1].startswith(f"error: {tmp_path}/gone: is not a folder; ")

    good = ["good0.png", "good1.png", "good2.png"]
    assert first["training"]["names"] == second["training"]["names"] == good
    assert second["training"]["seen"] == [] and second["training"]["code"] == 0
    assert [kind for kind, _ in first["training"]["seen"]] == ["header"] * 10 + ["values"] * 10  # five pairs

    shared = [known["inference"] for known in (first, second)]
    assert shared[0]["names"] == ["cut.png", "good1.png", "wrong.png"] and shared[1]["names"] == good[::2]
    assert shared[1]["seen"] == [] and {kind for kind, _ in shared[0]["seen"]} == {"header"}
    assert [known["code"] for known in shared] == [1, 1]

    colours = f"left out: {tmp_path}/images/colours.tif: number of channels is 3"
    assert [line.partition(";")[0].partition(": cannot")[0].partition(": holds")[0] for line in lines[2:]] == [
        "== training", f"left out: {cut}", f"left out: {tmp_path}/labels/wrong.png",
        "== inference", colours, colours,
    ]  # fmt: skip
