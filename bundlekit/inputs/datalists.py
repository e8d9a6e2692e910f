"""Finds the images of a run: the lists of a ``dataset.json``, a folder of images, or one file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import create_file_basename, load_decathlon_datalist
from monai.utils import ensure_tuple

from ..errors import InputError
from ..files import require_file
from .dicom import is_series
from .modalities import group_files

__all__ = ["find_images", "find_output_collisions", "name_output", "read_section", "require_inputs_outside"]

# A .img has its header in a .hdr, a .raw in a .mhd or .nhdr: the header stands for the pair.
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_ENDINGS = (*_PICTURES, ".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr")
_LAYOUT = "a folder with images/, labels/ and dataset.json"
_PREPARE = "make it with the bundle's scripts/prepare_data.py, or pass another folder with --dataset_dir"


def _read_lists(path: Path) -> dict[str, Any]:
    require_file(path, _PREPARE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not valid JSON ({error})", "a Decathlon data list", _PREPARE) from error
    if not isinstance(content, dict):
        raise InputError(path, f"holds a JSON {type(content).__name__}", "an object with named lists", _PREPARE)
    return content


def _fault(content: dict[str, Any], name: str) -> str | None:
    if name not in content:
        there = ", ".join(repr(key) for key, value in content.items() if isinstance(value, list)) or "none"
        return f"has no list {name!r} (its lists: {there})"
    entries = content[name]
    if not isinstance(entries, list) or not entries:
        return f"its list {name!r} is empty" if entries == [] else f"its entry {name!r} is not a list"
    plain_paths = name == "test" and all(isinstance(entry, str) for entry in entries)
    if plain_paths or all(isinstance(entry, dict) for entry in entries):
        return None
    return f"its list {name!r} has entries that are not JSON objects"


def read_section(
    dataset_dir: str | os.PathLike, name: str, keys: Sequence[str] = ("image", "label")
) -> list[dict[str, Any]]:
    """The entries of the list ``name`` of ``dataset_dir/dataset.json`` with their paths resolved.

    Only ``keys`` are kept; whether the files exist is not looked at.

    Args:
        dataset_dir: folder in the layout of the Medical Segmentation Decathlon.
        name: "training", "validation" or "test".
        keys: what to keep of an entry.

    Raises:
        InputError: where the folder, the file or the list is missing, empty or malformed.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> text = json.dumps({"training": [{"image": "images/a.png", "label": "/data/a.png"}]})
        >>> _ = Path(folder, "dataset.json").write_text(text)
        >>> [item] = read_section(folder, "training")
        >>> os.path.relpath(item["image"], folder), item["label"]
        ('images/a.png', '/data/a.png')
    """
    root = Path(str(dataset_dir))  # the command line turns a folder named 2012 into a number
    if not os.path.isdir(root):
        raise InputError(root, "is not a folder", _LAYOUT, _PREPARE)
    path = root / "dataset.json"
    fault = _fault(_read_lists(path), name)
    if fault:
        raise InputError(path, fault, f'a list {name!r} of {{"image": path, "label": path}}', _PREPARE)
    items = load_decathlon_datalist(path, is_segmentation=True, data_list_key=name)
    return [{key: item[key] for key in keys if key in item} for item in items]


def find_images(dataset_dir: str | os.PathLike, modalities: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The images to segment, as ``[{"image": path}, ...]``.

    One file stands for itself, and so does a folder with a DICOM series. With a ``dataset.json`` the folder gives its
    list "test", or where there is none all of ``images/``. Any other folder gives the images and the folders with DICOM
    series in it, sorted, without hidden files and files of other types.

    Args:
        dataset_dir: file or folder.
        modalities: words that the names of a volume's files end with, such as flair and t1, where each has several;
            the files of one case are then one entry, and one of its files stands for all of them.

    Raises:
        InputError: where there is nothing of that kind, or no image in it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.PNG", "a.nii.gz", ".c.png", "notes.txt"):
        ...     (folder / name).touch()
        >>> [Path(item["image"]).name for item in find_images(folder)]
        ['a.nii.gz', 'b.PNG']
    """
    root = Path(str(dataset_dir))
    if is_series(root):
        return [{"image": os.path.abspath(root)}]  # the folder's own name names the output, even of "."
    if os.path.isfile(root):
        return _cases([str(root)], modalities) if modalities else [{"image": str(root)}]
    if not os.path.isdir(root):
        raise InputError(root, "does not exist", "an image, a folder of images, or " + _LAYOUT, "correct --dataset_dir")
    folder = root
    if os.path.lexists(root / "dataset.json"):
        if _read_lists(root / "dataset.json").get("test"):
            return [{"image": item.get("image")} for item in read_section(root, "test")]
        folder = root / "images"
    paths = [str(folder / name) for name in _image_names(folder)]
    return _cases(paths, modalities) if modalities else [{"image": path} for path in paths]


def _cases(paths: list[str], modalities: Sequence[str]) -> list[dict[str, Any]]:
    """The entry of each case in a folder, or of the one case that a single file belongs to."""
    if len(paths) == 1:
        parent = Path(paths[0]).parent
        siblings = [str(parent / name) for name in _image_names(parent)]
        groups = [group for group in group_files(siblings, modalities) if paths[0] in group]
    else:
        groups = group_files(paths, modalities)
    if not groups:
        expected = f"files such as case_{modalities[0]}.nii.gz, one for each of {', '.join(modalities)}"
        raise InputError(paths[0], "has a name without a modality", expected, "rename the files")
    return [{"image": group} for group in groups]


def _image_names(folder: Path) -> list[str]:
    expected = f"images ({' '.join(_ENDINGS)})"
    remedy = "pass the folder that holds the images with --dataset_dir"
    try:
        names = [name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    except OSError as error:
        raise InputError(folder, f"cannot be opened ({error.strerror})", f"a folder of {expected}", remedy) from error
    images = [name for name in names if name.lower().endswith(_ENDINGS) or is_series(folder / name)]
    if not images:
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        found = f"holds no image, only {some}" if names else "is empty"
        raise InputError(folder, found, expected, remedy)
    return images


def name_output(path: str | os.PathLike) -> str:
    """The name of an image's outputs as MONAI's ``SaveImaged`` makes it, the file's without its ending.

    Example:
        >>> name_output("x/a.b.nii.gz")
        'a.b'
    """
    return str(create_file_basename("", path, "", separate_folder=False, makedirs=False))


def find_output_collisions(
    items: list[dict[str, Any]], name_of: Callable[[str], str] = name_output
) -> list[InputError]:
    """One error for each image whose output would replace the output of an earlier one, such as a.png and a.tif.

    Outputs lie flat in one folder under the input's name without its ending.

    Args:
        items: ``[{"image": path}, ...]``; where an image has several files the first one names the output.
        name_of: the name of a path's outputs.

    Example:
        >>> [error] = find_output_collisions([{"image": "x/a.png"}, {"image": "x/b.png"}, {"image": "y/a.nii.gz"}])
        >>> print(error)
        y/a.nii.gz: has the same output name as x/a.png; expected names that differ in more than their extension; \
rename one of them, or segment them in two runs with different --output_dir
    """
    first: dict[str, str] = {}
    errors = []
    for item in items:
        path = item["image"] if isinstance(item["image"], str) else item["image"][0]
        earlier = first.setdefault(name_of(path), path)
        if earlier is not path:
            found = f"has the same output name as {earlier}"
            remedy = "rename one of them, or segment them in two runs with different --output_dir"
            errors.append(InputError(path, found, "names that differ in more than their extension", remedy))
    return errors


def require_inputs_outside(output_dir: str | os.PathLike, items: Iterable[Any]) -> None:
    """Make sure that no image to segment lies in the folder of the outputs, where an output could replace it.

    Entries with a label are scored, not segmented, and pass; so do entries without paths, such as tensors.

    Args:
        output_dir: the folder of the outputs; it exists.
        items: entries of data lists, ``{"image": path or paths}`` in general.

    Raises:
        InputError: where an image lies in ``output_dir`` itself, or is that folder, by whatever name of it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> require_inputs_outside(folder, [{"image": folder + "/below/a.png"}])
        >>> require_inputs_outside(folder, [{"image": folder + "/a.png"}])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        bundlekit.errors.InputError: ...: is both input and output folder (it holds ...a.png); expected another ...
    """
    images = [item["image"] for item in items if isinstance(item, Mapping) and "image" in item and "label" not in item]
    paths = [path for image in images for path in ensure_tuple(image) if isinstance(path, str | os.PathLike)]
    first = {folder: path for path in reversed(paths) for folder in (Path(path), Path(path).parent)}
    for folder, path in first.items():
        if os.path.isdir(folder) and os.path.samefile(folder, Path(output_dir)):
            found = f"is both input and output folder (it holds {path})"
            raise InputError(output_dir, found, "another folder", "pass another --output_dir")
