"""Make the environment of a program that uses bundles, next to the project's own.

    python -m tools.consumers label      # .venv-label: MONAI Label, which needs numpy 1.26 and MONAI 1.5.2
    python -m tools.consumers deploy     # .venv-deploy: MONAI Deploy App SDK

tests/consumers/NAME.txt has the exact versions. The project's packages are installed as editable, so the environment
always has their current code. The environment is made once; .venv-NAME/.ready marks it as complete.
"""

from __future__ import annotations

import argparse
import subprocess
import venv
from pathlib import Path

from tools.zoo.contents import ROOT
from tools.zoo.trial import run_clean

NAMES = ("label", "deploy")
SCHEMAS = '''\
"""Declares two operators of torchvision, whose library needs CUDA's, where torch is built without CUDA."""

import sys
from importlib.abc import MetaPathFinder


class DeclareFirst(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            global library  # the operators go with it
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, DeclareFirst())
'''


def imports(python: Path, name: str) -> bool:
    return subprocess.run([str(python), "-c", f"import {name}"], capture_output=True).returncode == 0


def mend_torchvision(python: Path) -> None:
    """Let torchvision be imported where the package index has it for CUDA, and torch for CPUs."""
    if imports(python, "torchvision.utils"):
        return
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    (packages / "torchvision_schemas.py").write_text(SCHEMAS)
    (packages / "torchvision_schemas.pth").write_text("import torchvision_schemas\n")
    if not imports(python, "torchvision.utils"):
        raise SystemExit(
            f"{python}: cannot import torchvision; expected a version that fits the installed torch; install it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    name = parser.parse_args().name
    folder = ROOT / f".venv-{name}"
    (folder / ".ready").unlink(missing_ok=True)
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    wanted = ("--requirement", ROOT / f"tests/consumers/{name}.txt", "--editable", ROOT)
    run_clean(ROOT, python, "-m", "pip", "install", "--quiet", *wanted)
    if name == "label":
        mend_torchvision(python)
    (folder / ".ready").touch()


if __name__ == "__main__":
    main()
