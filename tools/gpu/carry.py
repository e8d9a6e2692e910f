"""Pack the repository, its weights and pure Python packages for a machine that has PyTorch but no network.

    python -m tools.gpu.carry DIR

Writes DIR/carried.zip and DIR/start.py, and prints the command to give there. Packages are those of this environment.
Exported programs, pictures and tests stay behind.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from bundlekit.errors import InputError
from bundlekit.files import write_atomically
from tools.gpu.start import ARCHIVE, ENDING, split_planes

__all__ = ["main", "package_files", "repository_files"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "monai", "pytorch-ignite", "memcnn", "nibabel", "fire", "termcolor", "importlib_resources", "torchdiffeq",
)  # fmt: skip
LEFT_BEHIND = {".ts", ".pt2", ".png", ".csv"}
LIMIT_MIB = 64
COMPILED = {".so", ".pyd", ".dylib"}


def repository_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Names in the archive, and files: what git tracks, without what no step needs."""
    command = ["git", "ls-files", "-z"]
    names = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")
    for name in sorted(filter(None, names)):
        path = root / name
        if path.suffix not in LEFT_BEHIND and not name.startswith("tests/") and path.is_file():
            yield f"repository/{name}", path


def package_files(package: str) -> Iterator[tuple[str, Path]]:
    """Names in the archive, and files of an installed package, without its tests.

    Raises:
        InputError: where it is not installed, or holds compiled code.
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        remedy = f"run pip install {package}"
        raise InputError(f"package {package}", "is not installed", "it in this environment", remedy) from None
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix in COMPILED:
            remedy = "install it on the machine with the GPU, and leave it out here"
            raise InputError(f"package {package}", f"holds compiled code, {file}", "pure Python", remedy)
        skipped = ".." in file.parts or "__pycache__" in file.parts or "tests" in file.parts
        if not skipped and path.is_file():
            yield f"packages/{file.as_posix()}", path


def pack(archive: Path, packages: Sequence[str]) -> None:
    """Write everything to one archive; weights as planes of bytes."""
    files = [*repository_files(ROOT), *(entry for package in packages for entry in package_files(package))]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in dict(files).items():
            if path.suffix == ".pt":
                packed.writestr(name + ENDING, split_planes(path.read_bytes()))
            else:
                packed.write(path, name)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu.carry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument("--packages", nargs="*", default=PACKAGES, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--limit_mib", type=float, default=LIMIT_MIB, help="at most (default: %(default)s)")
    args = parser.parse_args(words)
    archive = args.folder / ARCHIVE
    try:
        write_atomically(archive, lambda part: pack(part, args.packages))
    except InputError as error:
        raise SystemExit(str(error)) from None
    shutil.copyfile(Path(__file__).with_name("start.py"), args.folder / "start.py")
    mib = sum(path.stat().st_size for path in (archive, args.folder / "start.py")) / 2**20
    print(f"{args.folder}: {mib:.1f} MiB. There, in the folder above it:\n")
    print(f"    python3 {args.folder.name}/start.py --output OUT")
    if mib > args.limit_mib:
        raise SystemExit(f"{archive}: {mib:.1f} MiB; expected at most {args.limit_mib:g}; raise --limit_mib")


if __name__ == "__main__":
    main()
