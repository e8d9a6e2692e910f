"""Export the networks of bundles as TorchScript and ONNX, and compare both with the network in PyTorch.

    python -m tools.export [BUNDLE ...] [--formats ts onnx] [--output DIR]

Writes models/model.ts with MONAI's ckpt_export, which stores the configs and metadata in it, and models/model.onnx with
free batch and image sizes; with --output it writes DIR/BUNDLE_model.*. A network whose number of operations depends on
the image cannot be exported to ONNX; there configs/net_fixed_step.json is used as an overlay of inference.json. Each
file is then run on two image sizes, with batches of 1 and 3. If an output differs by more than TOLERANCE of the largest
output, or if a file cannot be made, the exit code is 1 and the earlier file is kept; the other files and bundles are
exported nevertheless.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from bundlekit.errors import InputError
from bundlekit.files import require_writable_folder, write_atomically
from tools.bundle_folder import TOLERANCE, image_shapes, largest_difference, load_network
from tools.commands import call

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
FIXED = "net_fixed_step"
FORMATS = ("ts", "onnx")

Network = Callable[[torch.Tensor], torch.Tensor]


def export_onnx(network: torch.nn.Module, image: torch.Tensor, path: Path) -> None:
    """One file, with the batch and every size free."""
    axes = dict.fromkeys([0, *range(2, image.ndim)], torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, on every export
        try:
            program = torch.onnx.export(
                network, (image,), input_names=["image"], output_names=["pred"], dynamic_shapes=(axes,), dynamo=True,
                verbose=False,
            )  # fmt: skip
        except Exception as error:  # torch's own, of many kinds and pages
            found = f"the network cannot be exported ({type(error).__name__})"
            expected = "one whose operations do not depend on the values of the image"
            remedy = f"give it such steps by configs/{FIXED}.json, or leave out onnx by --formats ts"
            raise InputError(path.name, found, expected, remedy) from error
    write_atomically(path, lambda name: program.save(name, external_data=False))


def open_onnx(path: Path) -> Network:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def export_script(bundle: Path, ckpt: Path, path: Path) -> None:
    """TorchScript with inference.json and metadata.json in it."""
    files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json", "ckpt_file": ckpt}
    words = [word for name, value in files.items() for word in (f"--{name}", value)]
    call(bundle, "-m", "monai.bundle", "ckpt_export", "network_def", "--filepath", path, *words)


def export(bundle: Path, output: Path | None, formats: Sequence[str], wrong: list[str]) -> list[dict[str, Any]]:
    """The files of a bundle, each with how far it is off; those that are right are put in their places.

    Files that cannot be made are added to ``wrong``.
    """
    ckpt = bundle / "models/model.pt"
    network = load_network(bundle)
    shapes = image_shapes(bundle, network)
    target, prefix = (bundle / "models", "") if output is None else (output, f"{bundle.name}_")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=target, prefix=".export-") as folder:
        if "ts" in formats:
            script = Path(folder, "model.ts")
            export_script(bundle, ckpt, script)
            off = largest_difference(torch.jit.load(script).eval(), network, shapes)
            rows.append({"file": script, "overlay": "", "off": off})
        if "onnx" in formats:
            onnx = Path(folder, "model.onnx")
            fixed = (bundle / f"configs/{FIXED}.json").exists()
            if fixed:
                network = load_network(bundle, FIXED)
            try:
                export_onnx(network, torch.rand(2, *shapes[0]), onnx)
                off = largest_difference(open_onnx(onnx), network, shapes)
                rows.append({"file": onnx, "overlay": FIXED if fixed else "", "off": off})
            except InputError as error:
                wrong.append(f"error: {bundle.name}: {error}")
        for row in rows:
            written, row["file"] = row["file"], target / (prefix + row["file"].name)
            row["mib"] = written.stat().st_size / 2**20
            if row["off"] <= TOLERANCE:
                written.replace(row["file"])
    return [{**row, "bundle": bundle.name, "sizes": shapes} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| bundle | file | overlay | MiB | sizes, with batches of 1 and 3 | largest difference |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        shown = ", ".join(" x ".join(map(str, size)) for size in row["sizes"])
        kind = row["file"].suffix[1:]
        lines.append(f"| {row['bundle']} | {kind} | {row['overlay']} | {row['mib']:.1f} | {shown} | {row['off']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs").is_dir())
    parser.add_argument(
        "bundles",
        nargs="*",
        metavar="BUNDLE",
        type=lambda word: Path(word).name,
        help=f"of {', '.join(known)}; all by default",
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--output", type=Path, help="folder for the files instead of each bundle's models/")
    args = parser.parse_args()
    if unknown := set(args.bundles) - set(known):
        parser.error(f"there is no bundle {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    if args.output is not None:
        args.output = args.output.resolve()
        try:
            require_writable_folder(args.output, "pass another one as --output")
        except InputError as error:
            parser.error(str(error))
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # ends what it has started and removes its folder
    for name in dict.fromkeys(args.bundles or known):
        try:
            rows += export(BUNDLES / name, args.output, args.formats, wrong)
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
