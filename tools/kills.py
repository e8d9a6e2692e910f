"""Kill trainings and inferences at random moments, continue them, and compare the results with undisturbed runs.

    python -m tools.kills --kills 50 --seed 0

Every run is on phantoms: of each bundle a training and an inference, each by one process and by two under torchrun.
The kills, with SIGKILL, go round them; of two processes either both and torchrun are killed or one. A run
that was killed is given the same command again, and killed again, until it ends by itself; then its weights, its state
and its history, or its outputs, have to be those of the undisturbed run, bit for bit. The exit code is 1 where they are
not, or where a run fails in another way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from bundlekit.phantoms import make_dataset

__all__ = ["Case", "Difference", "compare_outputs", "compare_trainings", "kill_at_random", "make_cases"]

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = ("nuclei_microscopy_segmentation", "hippocampus_mri_segmentation")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
RUN = ("-m", "monai.bundle", "run", "--config_file")
SIZES = {2: 96, 3: 32}
"""Extent of the phantoms, in pixels or voxels."""
PATCHES = {2: {}, 3: {"patch_size": "[16,16,16]", "crop_size": "[24,24,24]"}}
MAX_EPOCHS = 8


class Difference(Exception):
    """The result of a run that was killed is not that of the undisturbed one."""


@dataclass(frozen=True, eq=False)
class Case:
    """A command that is killed, by what it writes.

    Attributes:
        name: what it is.
        cwd: folder to run it in.
        words: the words behind ``python``, with OUT for the folder of its results.
        compare: raises :class:`Difference` where two such folders do not hold the same results.
    """

    name: str
    cwd: Path
    words: Sequence[str]
    compare: Callable[[Path, Path], None]

    def start(self, folder: Path) -> subprocess.Popen:
        """The command with its results in a folder, and what it prints in a file next to that."""
        words = [word.replace("OUT", str(folder)) for word in self.words]
        with folder.with_suffix(".log").open("ab") as log:
            return subprocess.Popen([sys.executable, *words], cwd=self.cwd, stdout=log, stderr=log)


def _require_equal(one: Any, other: Any, path: Path, place: str = "") -> None:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = torch.equal(one, other)
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key, value in one.items():
            _require_equal(value, other[key], path, f"{place}::{key}")
        return
    else:
        same = one == other
    if not same:
        raise Difference(f"{path}: {place.removeprefix('::') or 'the content'} differs from the undisturbed run's")


def compare_trainings(wanted: Path, found: Path) -> None:
    """Raise :class:`Difference` unless two trainings have written the same weights, state and history."""
    for name in ("model.pt", "state.pt"):
        one, other = (torch.load(folder / name, map_location="cpu", weights_only=True) for folder in (wanted, found))
        _require_equal(one, other, found / name)
    one, other = (json.loads((folder / "history.json").read_text()) for folder in (wanted, found))
    _require_equal(one, other, found / "history.json")


def compare_outputs(wanted: Path, found: Path) -> None:
    """Raise :class:`Difference` unless two inferences have written the same files, byte by byte."""
    one, other = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (wanted, found))
    if one.keys() != other.keys():
        raise Difference(f"{found}: holds {sorted(other)}; the undisturbed run wrote {sorted(one)}")
    _require_equal(one, other, found)


def make_cases(bundle: str, output: Path) -> list[Case]:
    """Four commands of a bundle, on phantoms that are made here. The inference has the bundle's own weights."""
    folder = ROOT / "bundles" / bundle
    dims = json.loads((folder / "configs/train.json").read_text())["checks"]["spatial_dims"]
    data = output / bundle / "data"
    make_dataset(bundle, data, training=4, validation=3, test=6, size=SIZES[dims])
    inputs = ["--dataset_dir", str(data), "--device", "cpu", "--output_dir", "OUT"]
    options = {"max_epochs": MAX_EPOCHS, "val_interval": 2, "resume": "true", **PATCHES[dims]}
    training = [*inputs, *itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items())]
    inference = [*RUN, "configs/inference.json", *inputs]
    configs = [f"configs/{name}.json" for name in ("train", "fit_demo", "multi_gpu_train")]
    return [
        Case(f"{bundle}, training", folder, [*RUN, str(configs[:2]), *training], compare_trainings),
        Case(f"{bundle}, training by two", folder, [*TORCHRUN, *RUN, str(configs), *training], compare_trainings),
        Case(f"{bundle}, inference", folder, inference, compare_outputs),
        Case(f"{bundle}, inference by two", folder, [*TORCHRUN, *inference], compare_outputs),
    ]


def _kill(process: subprocess.Popen, choose: random.Random) -> str:
    """Kill all processes of a run, or one of several; who was killed. Returns when all have ended."""
    parent = psutil.Process(process.pid)
    children = parent.children(recursive=True)
    workers = [child for child in children if "monai.bundle" in " ".join(child.cmdline())]
    only = choose.choice(workers) if len(workers) > 1 and choose.random() < 0.5 else None
    for victim in [parent, *children] if only is None else [only]:
        victim.kill()
    process.wait()
    psutil.wait_procs(children, timeout=120)
    return "all" if only is None else "one of two processes"


def _wait(process: subprocess.Popen, seconds: float) -> bool:
    """Whether a process has ended within so many seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _require_success(process: subprocess.Popen, folder: Path) -> None:
    if process.returncode != 0:
        log = folder.with_suffix(".log")
        raise Difference(f"{folder}: the run ended with exit code {process.returncode}, see {log}")


def _prepare(case: Case, folder: Path) -> float:
    """Run a case undisturbed; seconds that it took."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    process = case.start(folder)
    process.wait()
    _require_success(process, folder)
    return time.monotonic() - began


def kill_at_random(cases: Sequence[Case], output: Path, num_kills: int, seed: int) -> int:
    """Kill the cases in turn; each kill is at a moment drawn from the time that the undisturbed run takes.

    Args:
        cases: what is run.
        output: folder of the results.
        num_kills: how many kills of all cases together.
        seed: of the moments.

    Returns:
        How many runs that were killed have come to their end.

    Raises:
        Difference: where one of them has another result, or fails.
    """
    choose = random.Random(seed)
    places = {case: (output / f"{i}_undisturbed", output / f"{i}_killed") for i, case in enumerate(cases)}
    seconds = {}
    for case, (wanted, found) in places.items():
        seconds[case] = _prepare(case, wanted)
        shutil.rmtree(found, ignore_errors=True)
        print(f"{case.name}: {seconds[case]:.0f} s undisturbed", flush=True)
    was_killed = dict.fromkeys(cases, False)
    num_ended = num_killed = 0

    def conclude(case: Case) -> int:
        """Compare a run that has ended, and make place for the next."""
        wanted, found = places[case]
        case.compare(wanted, found)
        shutil.rmtree(found)
        ended, was_killed[case] = int(was_killed[case]), False
        return ended

    for case in itertools.cycle(cases):
        if num_killed == num_kills:
            break
        process = case.start(places[case][1])
        while _wait(process, moment := choose.uniform(0, seconds[case])):
            _require_success(process, places[case][1])
            num_ended += conclude(case)
            process = case.start(places[case][1])
        victims = _kill(process, choose)
        num_killed, was_killed[case] = num_killed + 1, True
        print(f"kill {num_killed} of {num_kills}: {case.name}, after {moment:.1f} s, {victims}", flush=True)
    for case, (_, found) in places.items():
        if was_killed[case]:
            process = case.start(found)
            process.wait()
            _require_success(process, found)
            num_ended += conclude(case)
    return num_ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help=f"default: {' '.join(BUNDLES)}")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=ROOT / "runs/kills")
    args = parser.parse_args()
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        cases = [case for bundle in args.bundles or BUNDLES for case in make_cases(bundle, output)]
        num_ended = kill_at_random(cases, output, args.kills, args.seed)
    except Difference as difference:
        raise SystemExit(f"error: {difference}") from None
    print(f"{args.kills} kills, {num_ended} runs continued to their end: all results are those of undisturbed runs")


if __name__ == "__main__":
    main()
