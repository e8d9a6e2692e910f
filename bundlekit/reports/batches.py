"""Saves a file for each image that an evaluator processes, atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch

__all__ = ["file_name", "images_of", "write_atomically"]


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file on the same disk and move it to ``path`` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        part = Path(folder, path.name)
        write(part)
        os.replace(part, path)


def images_of(engine: Engine) -> list[MetaTensor]:
    batch: Any = engine.state.batch
    return [item["image"] for item in (decollate_batch(batch) if isinstance(batch, Mapping) else batch)]


def file_name(image: MetaTensor) -> str:
    return Path(image.meta.get("filename_or_obj", "image")).name
