"""Export the networks of bundles as TorchScript, ExportedProgram and ONNX, and compare each with the one in PyTorch.

    python -m tools.export [BUNDLE ...] [--formats ts pt2 onnx] [--output DIR]

Writes models/model.ts with MONAI's ckpt_export, models/model.pt2 with torch.export, both with metadata.json and
inference.json inside, and models/model.onnx, the last two with free batch and image sizes; with --output it writes
DIR/BUNDLE_model.*. The ONNX file of a bundle that has configs/net_fixed_step.json is exported with that overlay of
inference.json. Each file is then run on two image sizes, with batches of 1 and 3. If an output differs by more than
TOLERANCE of the largest output, or if a file cannot be made, the exit code is 1 and the earlier file is kept; the other
files and bundles are exported nevertheless.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bundlekit.errors import InputError
from bundlekit.files import require_writable_folder
from studies.markdown import markdown_table
from tools.arguments import add_bundles, choose_bundles
from tools.bundle_folder import TOLERANCE, image_shapes, largest_difference, load_network
from tools.formats import FIXED_STEPS, FORMATS, open_exported, write_exported


def export(bundle: Path, output: Path | None, formats: Sequence[str], wrong: list[str]) -> list[dict[str, Any]]:
    """Export a bundle's network and put the files that are right in their places.

    Returns:
        for each file that was made: "file", "overlay", "mib", "bundle", "sizes", and "off", its largest difference.
        What could not be made is added to ``wrong``.
    """
    network = load_network(bundle)
    shapes = image_shapes(bundle, network)
    target, prefix = (bundle / "models", "") if output is None else (output, f"{bundle.name}_")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=target, prefix=".export-") as folder:
        for ending in formats:
            written, file = Path(folder, f"model.{ending}"), target / f"{prefix}model.{ending}"
            fixed = ending == "onnx" and (bundle / f"configs/{FIXED_STEPS}.json").exists()
            wanted = load_network(bundle, FIXED_STEPS) if fixed else network
            try:
                write_exported(bundle, wanted, torch.rand(2, *shapes[0]), written)
                off = largest_difference(open_exported(written).network, wanted, shapes)
            except InputError as error:
                wrong.append(f"error: {bundle.name}: {error}")
                continue
            mib = written.stat().st_size / 2**20
            if off <= TOLERANCE:
                written.replace(file)
            row = {"bundle": bundle.name, "file": file, "overlay": FIXED_STEPS if fixed else "", "off": off, "mib": mib}
            rows.append({**row, "sizes": shapes})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    columns = ["bundle", "file", "overlay", "MiB", "sizes, with batches of 1 and 3", "largest difference"]
    cells = []
    for row in rows:
        sizes = ", ".join(" x ".join(map(str, size)) for size in row["sizes"])
        file, mib, off = row["file"].suffix[1:], f"{row['mib']:.1f}", f"{row['off']:.1e}"
        cells.append([row["bundle"], file, row["overlay"], mib, sizes, off])
    return markdown_table(columns, cells)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_bundles(parser)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--output", type=Path, help="folder for the files instead of each bundle's models/")
    args = parser.parse_args()
    args.bundles = choose_bundles(parser, args.bundles)
    if args.output is not None:
        args.output = args.output.resolve()
        try:
            require_writable_folder(args.output, "pass another one as --output")
        except InputError as error:
            parser.error(str(error))
    return args


def main() -> None:
    args = read_arguments()
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # ends what it has started and removes its folder
    for bundle in args.bundles:
        try:
            rows += export(bundle, args.output, args.formats, wrong)
        except InputError as error:
            wrong.append(f"error: {error}")
    print(f"\n{table(rows)}\n\nDifferences are shares of the largest output; {TOLERANCE:g} is allowed.")
    wrong += [
        f"error: {row['file']}: not written; the export differs by {row['off']:.1e}, expected {TOLERANCE:g} at most"
        for row in rows
        if not row["off"] <= TOLERANCE
    ]
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
