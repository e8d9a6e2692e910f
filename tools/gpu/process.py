"""One step in this process: ``python -m tools.gpu.process STEP ...``, which ``python -m tools.gpu`` starts."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch

from tools.gpu.machine import describe_machine
from tools.gpu.results import Report, Results
from tools.gpu.steps import STEPS
from tools.gpu.timing import Settings

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=[step.name for step in STEPS])
    parser.add_argument("--results", type=Path, required=True, help="JSON file to add to")
    parser.add_argument("--folder", required=True, help="for files that nobody needs afterwards")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", choices=("full", "small"), default="full")
    args = parser.parse_args(arguments)
    step = next(step for step in STEPS if step.name == args.step)
    torch.manual_seed(0)
    device = torch.device(args.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    settings = Settings(device, args.sizes == "small", args.folder)
    results = Results(args.results)
    results.content["machine"] = results.content["machine"] or describe_machine(settings.device)
    report = Report(results, step.name)
    importlib.import_module(f"tools.gpu.{step.module}").run(report, settings, *step.arguments)


if __name__ == "__main__":
    main()
