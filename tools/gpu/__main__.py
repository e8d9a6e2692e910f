"""Check and measure all bundles and networks on a GPU, in at most --minutes; the same command again continues.

    python -m tools.gpu --output OUT
    python -m tools.gpu --output OUT --device cpu --sizes small     # rehearsal without a GPU

Each step runs in a process of its own under a time limit, the most important ones first. OUT/gpu.json holds all that is
known so far, OUT/gpu.md shows it as tables, OUT/gpu.log holds what the processes printed. Steps that have ended without
a failed check are not repeated. The exit code is 1 where a check has failed or a step has not been done.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path

import torch

from bundlekit.errors import InputError
from tools.gpu.page import write_page
from tools.gpu.results import Results
from tools.gpu.runner import run_steps
from tools.gpu.steps import STEPS

__all__ = ["main"]

PATIENCE_ON_CPU = 5
"""The steps' time limits are for a GPU; a rehearsal takes longer."""


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [step.name for step in STEPS]
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda", help="such as cuda, cuda:1 or cpu (default: %(default)s)")
    parser.add_argument("--sizes", choices=("full", "small"), default="full", help="default: %(default)s")
    parser.add_argument("--steps", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=9, help="no step runs longer (default: %(default)s)")
    parser.add_argument("--earlier", type=Path, help="gpu.json of a run to continue, where OUT has none yet")
    args = parser.parse_args(words)
    args.output = args.output.resolve()
    return args


def open_results(args: argparse.Namespace) -> Results:
    """The results of OUT, or those of --earlier; InputError where they are of another device or other sizes."""
    path = args.output / "gpu.json"
    args.output.mkdir(parents=True, exist_ok=True)
    if args.earlier and not path.exists():
        shutil.copyfile(args.earlier, path)
    results = Results(path)
    wanted = {"device": args.device, "sizes": args.sizes}
    before = results.content["settings"] or wanted
    if before != wanted:
        raise InputError(path, f"is of a run with {before}", str(wanted), "choose another --output")
    results.content["settings"] = wanted
    results.save()
    return results


def main(words: list[str] | None = None) -> None:
    args = arguments(words)
    try:
        device = torch.device(args.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            remedy = "install a driver and a build of PyTorch for it, or rehearse with --device cpu --sizes small"
            raise InputError("--device", "PyTorch finds no GPU", "a GPU", remedy)
        results = open_results(args)
    except (InputError, RuntimeError, OSError) as error:
        raise SystemExit(str(error)) from None
    steps = [step for step in STEPS if step.name in args.steps]
    options = ["--device", args.device, "--sizes", args.sizes]
    results = run_steps(steps, results, args.minutes, options, PATIENCE_ON_CPU if device.type == "cpu" else 1)
    write_page(results, steps)
    problems = results.problems([step.name for step in steps])
    print("\n".join([f"see {args.output / 'gpu.md'}", *problems]), flush=True)
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the running step is ended as well
    main()
