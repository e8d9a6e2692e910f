"""Lays out volumes: the cases, their files and lists, for the prepare_data.py of the bundles for volumes."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..files import require_file
from .layout import open_layout, progress, run_preparation

__all__ = ["Case", "Plan", "file_faults", "nifti_name", "run_program", "write_cases"]


class Case(NamedTuple):
    """The files of one patient or volume.

    Args:
        name: of the files to write.
        images: the file of each modality, by its name; with a single modality the file's name does not contain it.
        label: file of the label map; None where there is none.
    """

    name: str
    images: Mapping[str, Path]
    label: Path | None


class Plan(NamedTuple):
    """What a prepare_data.py would write, and why it cannot.

    Args:
        cases, sections, header, convert_image, convert_label: see :func:`write_cases`.
        errors: all that is wrong with the files.
    """

    cases: Sequence[Case]
    sections: Mapping[str, Sequence[str]]
    header: Mapping[str, Any]
    errors: Sequence[InputError]
    convert_image: Callable[[Path, Path], Any] = shutil.copyfile
    convert_label: Callable[[Path, Path], Any] = shutil.copyfile


def nifti_name(path: Path) -> str:
    """The name of a NIfTI file without its ending.

    Example:
        >>> nifti_name(Path("a/b.c.nii.gz")), nifti_name(Path("b.nii"))
        ('b.c', 'b')
    """
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _ending(path: Path) -> str:
    return ".nii" if path.name.endswith(".nii") else ".nii.gz"


def file_faults(cases: Sequence[Case], output: Path) -> list[InputError]:
    """All files of the cases that are missing or empty, and where the output would overwrite one.

    Args:
        cases: what to copy.
        output: folder to write to.

    Example:
        >>> [error] = file_faults([Case("a", {"MRI": Path("/nowhere/a.nii.gz")}, None)], Path("data"))
        >>> print(error)
        /nowhere/a.nii.gz: cannot be opened (No such file or directory); expected a file; download it again, or take \
the whole case out
    """
    errors = []
    folders = {(output / kind).resolve() for kind in ("images", "labels")}
    for path in (path for case in cases for path in [*case.images.values(), case.label] if path is not None):
        try:
            require_file(path, "download it again, or take the whole case out")
        except InputError as error:
            errors.append(error)
        if path.parent.resolve() in folders:
            found = f"is the folder of the source (it holds {path.name})"
            return [InputError(output, found, "another folder", "pass another --output")]
    return errors


def write_cases(
    output: Path,
    cases: Sequence[Case],
    sections: Mapping[str, Sequence[str]],
    header: Mapping[str, Any],
    convert_image: Callable[[Path, Path], Any] = shutil.copyfile,
    convert_label: Callable[[Path, Path], Any] = shutil.copyfile,
) -> None:
    """Write images/, labels/ and then dataset.json, which lists what was written.

    Args:
        output: folder to write to.
        cases: what to write; files that are no NIfTI get the ending .nii.gz.
        sections: names of the cases of each list of dataset.json.
        header: further entries of dataset.json.
        convert_image: writes a file from another one.
        convert_label: the same, for labels.

    Example:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.nii").write_text("volume")
        >>> write_cases(folder / "data", [Case("a", {"MRI": folder / "a.nii"}, None)], {"test": ["a"]}, {})
        >>> json.loads((folder / "data/dataset.json").read_text())
        {'test': [{'image': 'images/a.nii'}]}
    """
    with open_layout(output, header) as lists:
        items: dict[str, dict[str, Any]] = {}
        for case in progress(cases, "writing", "case"):
            images = []
            for modality, file in case.images.items():
                name = case.name if len(case.images) == 1 else f"{case.name}_{modality}"
                images.append(f"images/{name}{_ending(file)}")
                convert_image(file, output / images[-1])
            items[case.name] = {"image": images if len(images) > 1 else images[0]}
            if case.label is not None:
                items[case.name]["label"] = f"labels/{case.name}{_ending(case.label)}"
                convert_label(case.label, output / items[case.name]["label"])
        lists.update({section: [items[name] for name in names] for section, names in sections.items()})


def run_program(
    description: str,
    fold_help: str,
    make_plan: Callable[..., Plan],
    choices: Mapping[str, tuple[Sequence[str], str]] | None = None,
) -> int:
    """The command line of a prepare_data.py, ``--source --output --fold`` and its own options; gives its exit code.

    Args:
        description: what --help says.
        fold_help: what it says of --fold.
        make_plan: the plan from source, fold and output, and from the value of each option by its name; it may raise
            the first error that it meets.
        choices: the values of each option by its name, the default first, and what --help says of it.
    """
    options = choices or {}

    def prepare(args: argparse.Namespace) -> Mapping[str, Sequence[str]]:
        chosen = {name: getattr(args, name) for name in options}
        plan = make_plan(args.source, args.fold, args.output, **chosen)
        if plan.errors:
            raise ValueError("\n".join(map(str, plan.errors)))
        write_cases(args.output, plan.cases, plan.sections, plan.header, plan.convert_image, plan.convert_label)
        return plan.sections

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--fold", type=int, default=0, help=f"{fold_help} (default: %(default)s)")
    for name, (values, text) in options.items():
        parser.add_argument(f"--{name}", choices=values, default=values[0], help=f"{text} (default: %(default)s)")
    return run_preparation(parser, prepare)
