"""Unpack what python -m tools.gpu.carry has packed next to this file, and run python -m tools.gpu there.

    python3 start.py --output OUT [options of tools.gpu]

Needs nothing but Python to unpack. Packages in carried.zip are preferred to the machine's own; a stand-in takes the
place of ITK where that is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

__all__ = ["ARCHIVE", "ENDING", "join_planes", "main", "split_planes", "unpack"]

ARCHIVE, ENDING = "carried.zip", ".planes"


def split_planes(data: bytes) -> bytes:
    """The first bytes of all numbers of four bytes, then the second ones and so on: float32 packs to 85 % that way.

    Example:
        >>> split_planes(b"abcdABCD-")
        b'aAbBcCdD-'
    """
    whole = len(data) // 4 * 4
    return b"".join([*(data[i:whole:4] for i in range(4)), data[whole:]])


def join_planes(planes: bytes) -> bytes:
    """The bytes that ``split_planes`` was given.

    Example:
        >>> join_planes(b"aAbBcCdD-")
        b'abcdABCD-'
    """
    count = len(planes) // 4
    data = bytearray(planes)
    for i in range(4):
        data[i : 4 * count : 4] = planes[i * count : (i + 1) * count]
    return bytes(data)


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive; ``split_planes`` is undone where a name says that it was done."""
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            target = folder / PurePosixPath(name.removesuffix(ENDING))
            target.parent.mkdir(parents=True, exist_ok=True)
            data = packed.read(name)
            target.write_bytes(join_planes(data) if name.endswith(ENDING) else data)


def is_missing(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is None
    except ImportError:
        return True


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    args, options = parser.parse_known_args(words)
    archive = Path(__file__).resolve().with_name(ARCHIVE)
    if not archive.is_file():
        raise SystemExit(f"{archive}: is missing; expected next to this file; run python -m tools.gpu.carry DIR first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(archive, folder)
        paths = [folder / "repository", folder / "packages"]
        if is_missing("itk"):
            paths.append(folder / "repository/tools/gpu/stand_in")
        before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *before])}
        command = [sys.executable, "-m", "tools.gpu", "--output", str(args.output.resolve()), *options]
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
