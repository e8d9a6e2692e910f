"""Step: what the machine is, and whether each process of a run picks its own GPU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from unittest import mock

import torch

from bundlekit.processes import pick_device
from tools.gpu.results import Report
from tools.gpu.timing import Settings

__all__ = ["describe_machine", "run"]

PACKAGES = ("monai", "pytorch-ignite", "torchdiffeq", "memcnn", "itk", "numpy", "triton")
PROGRAM = "from bundlekit.processes import pick_device; print(pick_device())"


def version_of(package: str) -> str:
    """Installed version of a package, or that there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def driver() -> str:
    """Version of NVIDIA's driver, as its own program gives it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def describe_machine(device: torch.device) -> dict[str, str]:
    """What figures depend on, by name."""
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    found = {"device": f"CPU, {threads}", "torch": torch.__version__, "Python": platform.python_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "memory": f"{properties.total_memory / 2**30:.1f} GiB",
            "compute capability": f"{properties.major}.{properties.minor}",
            "number of GPUs": str(torch.cuda.device_count()),
            "driver": driver(),
            "CUDA, cuDNN": f"{torch.version.cuda}, {torch.backends.cudnn.version()}",
            "CPU": threads,
        }
    return found | {package: version_of(package) for package in PACKAGES}


def picked_in_process(**environment: str) -> str:
    """What ``pick_device`` gives in a new process with these environment variables."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **environment})
    return done.stdout.strip()


def check_pick_device(report: Report) -> None:
    count = torch.cuda.device_count()
    for rank in range(max(count, 1) + 1):
        wanted = f"cuda:{rank % count}" if count else "cpu"
        with mock.patch.dict(os.environ, LOCAL_RANK=str(rank)):
            found = pick_device()
        report.check(f"pick_device with LOCAL_RANK {rank}, {count} GPUs", found == wanted, found)
    found = picked_in_process(CUDA_VISIBLE_DEVICES="", LOCAL_RANK="1")
    report.check("pick_device where CUDA_VISIBLE_DEVICES shows none", found == "cpu", found)
    if count == 0:
        report.needs_gpu("pick_device where CUDA_VISIBLE_DEVICES shows each process its own GPU")
        return
    for number in range(min(count, 2)):
        found = picked_in_process(CUDA_VISIBLE_DEVICES=str(number), LOCAL_RANK=str(number))
        name = f"pick_device where CUDA_VISIBLE_DEVICES shows GPU {number} to process {number}"
        report.check(name, found == "cuda:0", found)


def run(report: Report, settings: Settings) -> None:
    """Check ``pick_device``.

    Args:
        report: takes the checks.
        settings: not used.
    """
    check_pick_device(report)
