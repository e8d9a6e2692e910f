"""Every program of the repository begins: `python -m NAME --help`, in a fork, and as a true start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for folder in ("tools", "studies") for path in sorted((ROOT / folder).rglob("*.py"))]
MODULES = ["bundlekit.phantoms", "invres3d.plan"] + [
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if '"__main__"' in path.read_text()
]
TRUE_STARTS = {"bundlekit.phantoms"}
"""The installed programs. Of the others each start costs six seconds of imports, so that they are tier 2."""
PREPARE = sorted(ROOT.glob("bundles/*/scripts/prepare_data.py"))
assert len(MODULES) > 10 and len(PREPARE) > 1


@pytest.mark.parametrize("module", MODULES)
def test_help(module):
    done = commands.run("-m", module, "--help", cwd=ROOT)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "module", [pytest.param(m, marks=[] if m in TRUE_STARTS else pytest.mark.slow) for m in MODULES]
)
def test_true_start(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and "Traceback" not in done.stderr, done.stderr


def test_true_start_of_monai_bundle(tmp_path):
    bundle = ROOT / "bundles/membrane_em_segmentation"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    words = ["--dataset_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path), "--device", "cpu"]
    done = subprocess.run([*command, *words], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    forked = commands.run(*command[1:], *words, cwd=bundle)
    lines = [[line for line in run.stderr.splitlines() if line.startswith("error: ")] for run in (done, forked)]
    assert lines[0] == lines[1] and len(lines[0]) == 1 and f"{tmp_path}/none: " in lines[0][0]


def test_preparing_data_needs_neither_torch_nor_monai():
    """One start for all of them: a download is laid out where nothing else is installed, and within a second."""
    modules = [f"bundlekit.prepare.{path.stem}" for path in ROOT.glob("bundlekit/prepare/*.py") if path.stem[0] != "_"]
    program = (
        "import importlib, runpy, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        f"for path in {list(map(str, PREPARE))}:\n"
        "    runpy.run_path(path, run_name='script')\n"
        "    print(path, *sorted({'torch', 'monai', 'ignite', 'itk'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(map(str, PREPARE))


@pytest.mark.parametrize("path", PREPARE, ids=lambda path: path.parents[1].name)
def test_help_of_preparing_data(path):
    done = commands.run_script(path, "--help")
    assert done.returncode == 0 and "--source" in done.stdout and "--output" in done.stdout
