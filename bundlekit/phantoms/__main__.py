"""Command line of the phantoms: ``python -m bundlekit.phantoms NAME DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import KINDS, make_dataset

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the phantom data set that the command line asks for; exit with code 2 and one line where it cannot be done.

    Args:
        arguments: the command line's words, ``sys.argv[1:]`` if None.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     main(["membrane_em_segmentation", folder, "--training", "2", "--size", "64"])
    """
    parser = argparse.ArgumentParser(prog="python -m bundlekit.phantoms", description="Write a phantom data set.")
    parser.add_argument("name", metavar="NAME", help=f"bundle to make data for: {', '.join(sorted(KINDS))}")
    parser.add_argument("directory", metavar="DIR", help="new or empty folder to write to")
    parser.add_argument("--training", type=int, default=8, help="number of training images (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=2, help="number of validation images (default: %(default)s)")
    parser.add_argument("--test", type=int, default=4, help="number of test images (default: %(default)s)")
    parser.add_argument("--size", type=int, help="edge length in px or voxels (default: the bundle's)")
    parser.add_argument("--seed", type=int, default=0, help="seed, 0 or above (default: %(default)s)")
    options = vars(parser.parse_args(arguments))
    try:
        make_dataset(**options)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
