"""Who may import whom, read from the syntax trees and from the bundles' configs."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("unet_ode", "invres3d", "bundlekit")
PROGRAMS = ("studies", "tools", "tests", "bundles")
NEVER = {"torchvision", "bundles", "scripts", "prepare_data"}
LIGHT = ("bundlekit/errors.py", "bundlekit/files.py", "bundlekit/prepare/**/*.py")
HEAVY = {"torch", "monai", "ignite"}
IN_CONFIGS = {*PACKAGES, "monai", "torch", "ignite", "numpy", *sys.stdlib_module_names}
BY_NAME = {"import_module", "optional_import", "__import__"}
VAGUE = {"utils", "helpers", "common", "misc"}


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Absolute names of the modules that a program imports, by statement or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in BY_NAME:
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def config_modules(content: Any) -> Iterator[str]:
    """Modules that a config names in a dotted ``_target_`` or in "$import ..."."""
    if isinstance(content, dict):
        target = content.get("_target_", "")
        yield from [target] if "." in target else []
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from config_modules(value)
    elif isinstance(content, str) and content.startswith(("$import ", "$from ")):
        yield from imported_modules(ast.parse(content[1:]))


def imported_files(root: Path, path: Path) -> Iterator[Path]:
    """The files of the same package that a module's statements run: what it imports relatively, and their packages."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            folder = path.parents[node.level - 1] / Path(*(node.module or "").split("."))
            for name in [folder, *(folder / alias.name for alias in node.names)]:
                yield from (file for file in (name.with_suffix(".py"), name / "__init__.py") if file.is_file())
    for parent in path.parents:
        if parent == root:
            break
        yield from [parent / "__init__.py"] if (parent / "__init__.py").is_file() else []


def heavy_imports(root: Path, path: Path) -> set[str]:
    """Heavy modules that importing a module would load, by itself or by what it imports from its package."""
    found: set[str] = set()
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            found |= {name for name in imported_modules(ast.parse(file.read_text())) if name.split(".")[0] in HEAVY}
            waiting += imported_files(root, file)
    return found


def find(root: Path, pattern: str) -> list[Path]:
    files = sorted(path for path in root.glob(pattern) if "__pycache__" not in path.parts)
    assert files, f"no file matches {pattern} in {root}: correct the pattern, or nothing is checked"
    return files


def find_violations(root: Path) -> list[str]:
    """All places in the repository ``root`` that break the rule, each with its file."""
    forbidden = dict.fromkeys(PROGRAMS, NEVER) | dict.fromkeys(PACKAGES, NEVER | {*PACKAGES, *PROGRAMS})
    found = []
    for pattern in LIGHT:
        for path in find(root, pattern):
            found += [f"{path.relative_to(root)} loads {name}" for name in sorted(heavy_imports(root, path))]
    for folder, names in forbidden.items():
        for path in find(root, f"{folder}/**/*.py"):
            modules = set(imported_modules(ast.parse(path.read_text())))
            bad = sorted(name for name in modules if name.split(".")[0] in names)
            found += [f"{path.relative_to(root)} imports {name}" for name in bad]
            vague = VAGUE & {*path.relative_to(root).with_suffix("").parts}
            found += [f"{path.relative_to(root)}: {name!r} says nothing, name it after what it holds" for name in vague]
    for path in find(root, "bundles/*/configs/*.json"):
        bad = {name for name in config_modules(json.loads(path.read_text())) if name.split(".")[0] not in IN_CONFIGS}
        found += [f"{path.relative_to(root)} names {name}" for name in sorted(bad)]
    packages = root.glob("bundles/**/__init__.py")
    return found + [f"{path.relative_to(root)}: a bundle is no package, remove it" for path in packages]


def test_import_rule():
    violations = find_violations(ROOT)
    assert not violations, (
        "against the import rule (packages: themselves, relatively; bundlekit's errors, files and prepare: nothing "
        "that loads torch, MONAI or ignite; configs: only the packages, monai, torch, ignite, numpy and the standard "
        "library): " + "; ".join(violations)
    )


CLEAN = {
    "unet_ode/nets.py": "import numpy as np\nfrom . import ode\nfrom .ode import solver\n",
    "invres3d/engine.py": "import torch\nimport unet_odes, bundles_of_things\n",
    "bundlekit/__init__.py": "",
    "bundlekit/errors.py": "import os\n",
    "bundlekit/files.py": "from .errors import InputError\n",
    "bundlekit/prepare/__init__.py": "",
    "bundlekit/prepare/layout.py": "import numpy\nfrom ..errors import InputError\nfrom . import volumes\n",
    "bundlekit/prepare/volumes.py": "from ..errors import InputError\n",
    "bundlekit/checks.py": '"""from unet_ode import nets"""\nimport os.path\n',
    "bundlekit/inputs/grids.py": "import monai\n",
    "studies/nuclei.py": "from tools import demo\nimport unet_ode.nets\n",
    "tools/demo.py": "from bundlekit import reports\n",
    "tests/test_nets.py": "from unet_ode.nets import UNet\nimport tools.report\n",
    "bundles/b/scripts/prepare.py": "import numpy\n",
    "bundles/b/configs/train.json": '{"imports": ["$import os"], "net": [{"_target_": "unet_ode.UNet"}, "scripts.b"]}',
}
VIOLATIONS = [
    ("unet_ode/deep/a.py", "import invres3d"),
    ("unet_ode/a.py", "from unet_ode.nets import UNet"),
    ("invres3d/a.py", "def f():\n    import bundlekit.inputs.checks as c"),
    ("bundlekit/a.py", "try:\n    from unet_ode import nets\nexcept ImportError:\n    pass"),
    ("bundlekit/a.py", "import os, tools.report"),
    ("invres3d/a.py", "import importlib\nimportlib.import_module('tests.conftest')"),
    ("unet_ode/a.py", "transforms, _ = optional_import('torchvision.transforms')"),
    ("tools/a.py", "import torchvision"),
    ("tests/a.py", "from bundles.b import scripts"),
    ("tools/a.py", "from scripts import prepare"),
    ("bundles/b/scripts/a.py", "from torchvision import transforms"),
    ("bundles/b/scripts/__init__.py", ""),
    ("bundlekit/prepare/sources.py", "def f():\n    import torch.distributed"),
    ("bundlekit/files.py", "from monai.utils import ensure_tuple"),
    ("bundlekit/prepare/sources.py", "from ..inputs import grids"),
    ("bundlekit/prepare/sources.py", "from ..inputs.grids import Grid"),
    ("tests/a.py", "import torchvision.ops"),
    ("invres3d/a.py", "import studies.nuclei"),
    ("bundlekit/a.py", "from invres3d.nets import UNet3D"),
    ("bundlekit/a.py", "import bundlekit.files"),
    ("bundlekit/helpers.py", ""),
    ("unet_ode/utils/shapes.py", ""),
    ("bundles/b/configs/inference.json", '{"imports": ["$import scripts.nets"]}'),
    ("bundles/b/configs/inference.json", '{"a": {"b": [{"_target_": "scripts.nets.UNet"}]}}'),
    ("bundles/b/configs/inference.json", '{"imports": ["$from skimage import filters"]}'),
]


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(("name", "text"), VIOLATIONS, ids=[f"{name}: {text}" for name, text in VIOLATIONS])
def test_a_violation_is_found(tmp_path, name, text):
    write_tree(tmp_path, CLEAN)
    assert find_violations(tmp_path) == []
    write_tree(tmp_path, {name: text})
    (violation,) = find_violations(tmp_path)
    assert violation.startswith(name)


def test_a_package_that_loads_torch_is_found_in_all_that_it_holds(tmp_path):
    write_tree(tmp_path, {**CLEAN, "bundlekit/inputs/__init__.py": "from .grids import Grid\n"})
    assert find_violations(tmp_path) == []
    write_tree(tmp_path, {"bundlekit/__init__.py": "from .inputs.grids import Grid\n"})
    light = ["errors.py", "files.py", "prepare/__init__.py", "prepare/layout.py", "prepare/volumes.py"]
    assert find_violations(tmp_path) == [f"bundlekit/{name} loads monai" for name in light]


NEEDED = [name for name in CLEAN if not name.startswith("bundlekit/")] + ["bundlekit/errors.py", "bundlekit/files.py"]


@pytest.mark.parametrize("missing", NEEDED)
def test_an_empty_place_is_an_error(tmp_path, missing):
    write_tree(tmp_path, {name: text for name, text in CLEAN.items() if name != missing})
    with pytest.raises(AssertionError, match="no file matches"):
        find_violations(tmp_path)
