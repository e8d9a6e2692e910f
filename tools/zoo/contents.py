"""The files of a bundle: which are packed, which must be there, and which are generated."""

from __future__ import annotations

import re
from pathlib import Path

from tools.formats import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ("models/model.pt", *(f"models/model.{ending}" for ending in SHIPPED))  # that every bundle has
INFERENCE = "configs/inference.json"
DEMO = "configs/fit_demo.json"
NEEDED = (
    "LICENSE",
    "docs/README.md",
    "docs/data_license.txt",
    "configs/metadata.json",
    INFERENCE,
    "configs/train.json",
    DEMO,
    *WEIGHTS,
)
PACKED = (
    "LICENSE",
    *(f"configs/**/*.{ending}" for ending in ("json", "conf")),
    *(f"docs/**/*.{ending}" for ending in ("md", "txt", "csv", "png")),
    "scripts/**/*.py",
)
"""Patterns of the files in a zip; the weights that a config names are added."""

MADE = frozenset(("data", "eval", "__pycache__"))
"""Folders that a bundle's own programs fill."""


def is_left_out(path: Path, bundle: Path) -> bool:
    """Hidden, as what an export that was stopped leaves behind, or made by the bundle's own programs."""
    parts = path.relative_to(bundle).parts
    return any(part.startswith(".") for part in parts) or bool(MADE.intersection(parts))


def configs_of(bundle: Path) -> list[Path]:
    return [path for path in sorted(bundle.glob("configs/**/*.json")) if not is_left_out(path, bundle)]


def named_weights(bundle: Path) -> list[str]:
    """Files in models/ that a config names, except WEIGHTS."""
    texts = "".join(path.read_text(encoding="utf-8") for path in configs_of(bundle))
    return sorted(set(re.findall(r"models/[\w/.-]*\.(?:pt2?|ts)\b", texts)).difference(WEIGHTS))


def files_of(bundle: Path) -> list[Path]:
    """What goes into the zip, in order."""
    weights = {bundle / name for name in (*WEIGHTS, *named_weights(bundle))}
    found = {path for pattern in PACKED for path in bundle.glob(pattern)} | weights
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and not is_left_out(path, bundle))


def left_out(bundle: Path) -> list[Path]:
    """Files of a bundle that are not packed, except generated ones."""
    packed = files_of(bundle)
    found = [path for path in sorted(bundle.rglob("*")) if not path.is_dir() and path not in packed]
    made = [path for path in found if path.suffix == ".onnx" or MADE.intersection(path.relative_to(bundle).parts)]
    return [path for path in found if path not in made]


def weights_of(bundle: Path) -> list[str]:
    """Weights of the network and others, such as an encoder's."""
    names = [path.relative_to(bundle).as_posix() for path in files_of(bundle)]
    return [name for name in names if name.startswith("models/")]
