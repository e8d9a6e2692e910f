"""Seconds and memory of segmenting an image with the shipped weights, for each bundle, on a CPU.

    OMP_NUM_THREADS=2 python -m tools.bench.inference [BUNDLE ...] [--repeats 3] [--size PIXELS]

Runs the command of the bundle's page on copies of one phantom, which has the size of a usual image: once on one copy
and once on several. The difference of the two times, divided by the difference of the numbers of copies, is the time of
an image; what is left of the first time is the start-up. Memory is the largest resident set of all processes of the run
together. Prints a table with the median and range over the repeats. Nothing else should run at the same time.
`make bench` does not include this program, since each bundle takes minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil

from studies.markdown import markdown_table

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SAMPLE_S = 0.02
COLUMNS = ["bundle", "image", "seconds an image", "start-up, s", "peak memory, MiB"]


class Case(NamedTuple):
    """A usual image of a bundle as a phantom, and the number of copies of the longer run."""

    size: int
    shown: str
    copies: int
    options: tuple[str, ...] = ()


class Run(NamedTuple):
    seconds: float
    peak_mib: float


CASES = {
    "brain_tumor_mri_segmentation": Case(240, "{0} x {1} x {2} voxels of 1 mm, four modalities", 2),
    "gland_histology_segmentation": Case(420, "{0} x {1} px at the network's scale", 5, ("--spacing", "1")),
    "hippocampus_mri_segmentation": Case(50, "{0} x {1} x {2} voxels of 1 mm", 11),
    "infant_brain_mri_segmentation": Case(192, "{0} x {1} x {2} voxels of 1 mm, two modalities", 2),
    "lung_ct_segmentation": Case(384, "{0} x {1} x {2} voxels, 384 x 384 x 312 mm", 2),
    "membrane_em_segmentation": Case(512, "{0} x {1} px", 11),
    "nuclei_microscopy_segmentation": Case(256, "{0} x {1} px", 11),
    "optic_disc_fundus_segmentation": Case(600, "{0} x {1} px", 11),
}


def run(command: Sequence[str], folder: Path) -> Run:
    """Seconds until a command has ended, and the peak memory of its processes.

    Args:
        command: the program and its arguments.
        folder: where to run it.

    Raises:
        SystemExit: when it fails, with what it printed.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        peaks = [0]
        sampler = threading.Thread(target=sample_memory, args=(child.pid, peaks))
        sampler.start()
        status = child.wait()
        seconds = time.perf_counter() - began
        sampler.join()
        if status != 0:
            log.seek(0)
            raise SystemExit(f"{log.read()[-2000:]}\nfailed with exit code {status}: {' '.join(command)}")
    return Run(seconds, peaks[0] / 2**20)


def sample_memory(pid: int, peaks: list[int]) -> None:
    """Keep in ``peaks[0]`` the most bytes that a process and its children have taken together, until it ends."""
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            tree = [process, *process.children(recursive=True)]
            together = sum(each.memory_info().rss for each in tree)
            peaks[0] = max(peaks[0], together, *map(peak_of, tree))
            time.sleep(SAMPLE_S)
    except (psutil.Error, OSError):  # it has ended
        return


def peak_of(process: psutil.Process) -> int:
    """The most bytes that one process has taken so far, between samples too; getrusage includes its parent's."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0


def copy_images(images: Path, folder: Path, copies: int) -> None:
    """Write the files of one image several times, under the names 000, 001, ... before what follows the number."""
    folder.mkdir()
    for source in sorted(images.iterdir()):
        for number in range(copies):
            shutil.copyfile(source, folder / f"{number:03d}{source.name[3:]}")


def segment(bundle: str, images: Path, options: Sequence[str]) -> Run:
    """One run of the bundle's command on a folder of images; SystemExit if an image has no output."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
        command += ["--dataset_dir", str(images), "--output_dir", output, "--device", "cpu", *options]
        result = run(command, BUNDLES / bundle)
        cases, found = {path.name[:3] for path in images.iterdir()}, {path.name[:3] for path in Path(output).iterdir()}
        if not cases <= found:
            raise SystemExit(f"{bundle}: no output for {sorted(cases - found)}: run this yourself: {' '.join(command)}")
    return result


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range, as "2.0 (1.0 to 3.0)".

    Example:
        >>> spread([3.0, 1.0, 2.0], 1)
        '2.0 (1.0 to 3.0)'
    """
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table_row(name: str, shown: str, copies: int, pairs: Sequence[tuple[Run, Run]]) -> str:
    """The row of a bundle.

    Args:
        name: the bundle.
        shown: the size of the image.
        copies: number of images of the longer run.
        pairs: for each repeat, the run on one image and the run on several.

    Example:
        >>> table_row("x", "64 x 64 px", 5, [(Run(7.0, 500.0), Run(15.0, 600.0))])
        '| x | 64 x 64 px | 2.00 (2.00 to 2.00) | 5.0 (5.0 to 5.0) | 600 (600 to 600) |'
    """
    each = [(many.seconds - one.seconds) / (copies - 1) for one, many in pairs]
    starts = [one.seconds - seconds for (one, _), seconds in zip(pairs, each, strict=True)]
    peaks = [max(one.peak_mib, many.peak_mib) for one, many in pairs]
    return f"| {name} | {shown} | {spread(each, 2)} | {spread(starts, 1)} | {spread(peaks, 0)} |"


def image_shape(path: Path) -> tuple[int, ...]:
    """Rows and columns of a PNG, or the sizes of a NIfTI volume along its axes."""
    words = "import nibabel, sys; print(*nibabel.load(sys.argv[1]).shape)"
    if path.suffix == ".png":
        words = "import sys; from PIL import Image; print(*Image.open(sys.argv[1]).size[::-1])"
    command = [sys.executable, "-c", words, str(path)]
    return tuple(map(int, subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()))


def measure(bundle: str, repeats: int, size: int | None) -> str:
    """The row of one bundle."""
    case = CASES[bundle]
    with tempfile.TemporaryDirectory() as folder:
        data, one, many = (Path(folder) / name for name in ("data", "one", "many"))
        phantom = ["--training", "0", "--validation", "0", "--test", "1", "--size", str(size or case.size)]
        run([sys.executable, "-m", "bundlekit.phantoms", bundle, str(data), *phantom], BUNDLES)
        copy_images(data / "images", one, 1)
        copy_images(data / "images", many, case.copies)
        shown = case.shown.format(*image_shape(next((data / "images").iterdir())))
        segment(bundle, one, case.options)  # fills the disk cache
        pairs = [(segment(bundle, one, case.options), segment(bundle, many, case.options)) for _ in range(repeats)]
    return table_row(bundle, shown, case.copies, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="names of bundles (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--size", type=int, help="of the phantoms in px or voxels (default: a usual image)")
    args = parser.parse_args()
    unknown = sorted(set(args.bundles) - CASES.keys())
    if unknown or args.repeats < 1:
        wanted = f"expected names from {', '.join(CASES)}, and --repeats from 1"
        parser.error(f"got bundles {unknown} and --repeats {args.repeats}; {wanted}")
    threads = os.environ.setdefault("OMP_NUM_THREADS", "2")
    print(f"CPU, {threads} threads, torch {version('torch')}, {args.repeats} repeats: median (smallest to largest)\n")
    print(markdown_table(COLUMNS, []), flush=True)
    for bundle in args.bundles or CASES:
        print(measure(bundle, args.repeats, args.size), flush=True)


if __name__ == "__main__":
    main()
