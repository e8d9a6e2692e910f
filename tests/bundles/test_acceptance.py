"""MONAI's own checks and exports on every bundle, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKER = ROOT.parent / "shared/check_bundle.py"


@pytest.mark.slow
@pytest.mark.skipif(not CHECKER.is_file(), reason=f"no {CHECKER}")
def test_bundle_is_accepted(bundle):
    command = [sys.executable, str(CHECKER), str(bundle), "--schema-dir", str(CHECKER.parent / "schema")]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{bundle.name}:\n{done.stdout}{done.stderr}"
