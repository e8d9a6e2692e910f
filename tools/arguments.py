"""The bundles that a program of the repository is for, as arguments of its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BUNDLES", "add_bundles", "choose_bundles", "known_bundles"]

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"


def known_bundles() -> list[str]:
    """Names of the repository's bundles, in order."""
    return sorted(path.name for path in BUNDLES.iterdir() if (path / "configs").is_dir())


def add_bundles(parser: argparse.ArgumentParser) -> None:
    """Let a command line name bundles, also by the paths of their folders; read them with ``choose_bundles``."""
    parser.add_argument(
        "bundles",
        nargs="*",
        metavar="BUNDLE",
        type=lambda word: Path(word).name,
        help=f"of {', '.join(known_bundles())}; all by default",
    )


def choose_bundles(parser: argparse.ArgumentParser, names: Sequence[str]) -> list[Path]:
    """Folders of the bundles with these names, each one once, or of all bundles where there is no name.

    Raises:
        SystemExit: with code 2 and the known names, where one is unknown.
    """
    known = known_bundles()
    if unknown := set(names) - set(known):
        parser.error(f"there is no bundle {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    return [BUNDLES / name for name in dict.fromkeys(names or known)]
