"""What is carried to a machine without network: packed without loss, and enough for every step where ITK is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest
import torch

from bundlekit.errors import InputError
from tools.gpu import carry
from tools.gpu.results import DONE
from tools.gpu.start import join_planes, split_planes, unpack
from tools.gpu.steps import STEPS


def test_weights_are_packed_without_loss_and_in_fewer_bytes(tmp_path):
    data = torch.randn(20_000).numpy().tobytes() + b"end"
    assert join_planes(split_planes(data)) == data
    with zipfile.ZipFile(tmp_path / "carried.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("repository/a.pt.planes", split_planes(data))
        packed.writestr("repository/b.json", "{}")
    unpack(tmp_path / "carried.zip", tmp_path / "out")
    assert (tmp_path / "out/repository/a.pt").read_bytes() == data
    assert (tmp_path / "out/repository/b.json").read_text() == "{}"
    assert (tmp_path / "carried.zip").stat().st_size < 0.9 * len(data)


def test_only_pure_packages_are_carried():
    names = dict(carry.package_files("fire"))
    assert "packages/fire/core.py" in names and not any(".." in name or "__pycache__" in name for name in names)
    with pytest.raises(InputError, match="holds compiled code"):
        dict(carry.package_files("numpy"))
    with pytest.raises(InputError, match="package no-such-package: is not installed"):
        dict(carry.package_files("no-such-package"))


BLOCKER = '''
"""As if ITK were not installed: only the stand-in is found."""
import importlib.machinery
import sys


class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] != "itk":
            return None
        folders = [folder for folder in sys.path if folder.endswith("stand_in")]
        found = importlib.machinery.PathFinder.find_spec(name, folders)
        if found is None:
            raise ModuleNotFoundError("No module named 'itk'", name="itk")
        return found


sys.meta_path.insert(0, Blocker)
'''


@pytest.mark.slow
def test_rehearsal_of_all_that_is_carried_where_itk_is_missing(tmp_path):
    """The very command for the other machine, with its packages, on a CPU; another folder, no repository in sight."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(BLOCKER)
    carry.main([str(tmp_path / "carried")])
    assert sum(path.stat().st_size for path in (tmp_path / "carried").iterdir()) <= 64 * 2**20
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked"), "OMP_NUM_THREADS": "1"}
    words = ["carried/start.py", "--output", "out", "--device", "cpu", "--sizes", "small", "--minutes", "40"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=2500
    )
    log = (tmp_path / "out/gpu.log").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + log[-5000:]
    content = json.loads((tmp_path / "out/gpu.json").read_text())
    assert all(content["steps"][step.name]["status"] == DONE for step in STEPS)
    reasons = [c["found"] for s in content["steps"].values() for c in s["checks"].values() if c["passed"] is None]
    assert len(reasons) > 10 and set(reasons) == {"needs a GPU"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gpu.json", "gpu.log", "gpu.md"]
