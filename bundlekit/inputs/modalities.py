"""Assigns the files of a volume to modalities by the last word of their names: case_flair.nii.gz, case-T1.hdr."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["group_files", "name_case", "pick_files", "put_in_order"]


def _split(path: str, modalities: Sequence[str]) -> tuple[str, str | None]:
    """The case and the modality that a file's name ends with; None for any other name."""
    words = "|".join(map(re.escape, modalities))
    match = re.fullmatch(rf"(.*[-_ ])?({words})(\.[a-z]+){{1,2}}", Path(path).name, re.IGNORECASE)
    if match:
        modality = next(word for word in modalities if word.lower() == match[2].lower())
        return str(Path(path).parent / (match[1] or "")), modality
    return path, None


def name_case(path: str, modalities: Sequence[str]) -> str:
    """The name of the case that a file is of, or of its folder where the file is named by its modality only.

    Args:
        path: the file.
        modalities: words that the names may end with, whatever their case.

    Returns:
        The name; empty where the file's name does not end with a modality.

    Example:
        >>> [name_case(path, ["t1", "t2"]) for path in ("d/a_t1.nii.gz", "d/a-b-T2.hdr", "d/t1.nii", "d/a_seg.nii")]
        ['a', 'a-b', 'd', '']
    """
    case, modality = _split(path, modalities)
    return "" if modality is None else os.path.basename(os.path.abspath(case)).rstrip("-_ ")


def group_files(paths: Sequence[str], modalities: Sequence[str]) -> list[list[str]]:
    """The files of each case, in the order of the cases' names; files of no known modality are left out.

    Args:
        paths: the files of a folder.
        modalities: words that the names may end with, whatever their case.

    Example:
        >>> group_files(["b_t1.nii", "a_t2.nii", "a_T1.nii", "a_seg.nii"], ["t1", "t2"])
        [['a_t2.nii', 'a_T1.nii'], ['b_t1.nii']]
    """
    cases: dict[str, list[str]] = {}
    for path in paths:
        case, modality = _split(path, modalities)
        if modality is not None:
            cases.setdefault(case, []).append(path)
    return [cases[case] for case in sorted(cases)]


def pick_files(paths: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """One file for each modality, in their order; further files are left out.

    Names that say nothing of modalities are taken as they are listed where there are as many as modalities.

    Args:
        paths: the files of one volume.
        modalities: words that the names may end with, whatever their case.

    Raises:
        InputError: where a modality has no file, or several.

    Example:
        >>> pick_files(["a_t2.nii", "a_seg.nii", "a_T1.nii"], ["t1", "t2"])
        ['a_T1.nii', 'a_t2.nii']
        >>> pick_files(["a_0000.nii", "a_0001.nii"], ["t1", "t2"])
        ['a_0000.nii', 'a_0001.nii']
        >>> pick_files(["a_t1.nii"], ["t1", "t2"])
        Traceback (most recent call last):
        bundlekit.errors.InputError: a_t1.nii: has no file for t2 next to it; expected one for each of t1, t2; add \
what is missing, with names that end like case_t1.nii.gz
    """
    files = {modality: [path for path in paths if _split(path, modalities)[1] == modality] for modality in modalities}
    if not any(files.values()) and len(paths) == len(modalities):
        return list(paths)
    wrong = [modality for modality, found in files.items() if len(found) != 1]
    if wrong:
        several = [f"{len(files[modality])} files for {modality}" for modality in wrong if files[modality]]
        missing = [modality for modality in wrong if not files[modality]]
        found = " and ".join(([f"no file for {', '.join(missing)}"] if missing else []) + several)
        remedy = f"add what is missing, with names that end like case_{modalities[0]}.nii.gz"
        if several:
            remedy = "list one file for each"
        raise InputError(paths[0], f"has {found} next to it", f"one for each of {', '.join(modalities)}", remedy)
    return [found[0] for found in files.values()]


def put_in_order(item: dict[str, Any], modalities: Sequence[str]) -> list[InputError]:
    """Put the files of an entry into the order of the modalities, or return what is wrong with them.

    Args:
        item: ``{"image": path or paths}``; anything but a list of paths stays as it is.
        modalities: as for :func:`pick_files`; where there are none the entry stays as it is.

    Example:
        >>> item = {"image": ["a_t2.nii", "a_t1.nii"]}
        >>> put_in_order(item, ["t1", "t2"]), item
        ([], {'image': ['a_t1.nii', 'a_t2.nii']})
    """
    paths = item.get("image")
    if modalities and isinstance(paths, list) and paths and all(isinstance(path, str) for path in paths):
        try:
            item["image"] = pick_files(paths, modalities)
        except InputError as error:
            return [error]
    return []
