"""The images of the batch that an evaluator processes, and their file names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.data import MetaTensor, decollate_batch

__all__ = ["image_file_name", "images_in_batch"]


def images_in_batch(engine: Engine) -> list[MetaTensor]:
    """The images of the batch that an engine is at, one by one."""
    batch: Any = engine.state.batch
    return [item["image"] for item in (decollate_batch(batch) if isinstance(batch, Mapping) else batch)]


def image_file_name(image: MetaTensor) -> str:
    """The name of the file that an image was read from."""
    return Path(image.meta.get("filename_or_obj", "image")).name
