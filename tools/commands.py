"""Runs commands as a user would type them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["call", "run_bundle"]


def call(folder: Path, *words: object) -> None:
    """Print ``python WORDS`` as one would type it and run it in the folder.

    Args:
        folder: where to run it.
        words: what follows ``python``.

    Raises:
        SystemExit: where the command fails.

    Example:
        >>> call(Path("."), "-c", "pass")
        $ python -c pass
    """
    command = list(map(str, words))
    shown = " ".join(f'"{word}"' if "'" in word else shlex.quote(word) for word in ["python", *command])
    place = os.path.relpath(folder)
    print(f"$ {shown}" if place == "." else f"$ cd {place} && {shown}", flush=True)
    status = subprocess.run([sys.executable, *command], cwd=folder).returncode
    if status != 0:
        raise SystemExit(f"the command above failed with exit code {status}; correct what it reports and start again")


def run_bundle(bundle: Path, configs: Sequence[str], **overrides: Any) -> None:
    """``python -m monai.bundle run`` in the bundle's folder.

    Args:
        bundle: its folder.
        configs: names in configs/, without ending; the first one is complete, the others are overlays.
        overrides: values by name; with "#" in the name, of a nested entry.

    Raises:
        SystemExit: where it fails.
    """
    files = [f"configs/{name}.json" for name in configs]
    words = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    call(bundle, "-m", "monai.bundle", "run", "--config_file", files, *words)
