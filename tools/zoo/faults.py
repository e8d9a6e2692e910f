"""What the zoo would send back: faults of a bundle's files, metadata and weights."""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from bundlekit.errors import InputError, describe
from bundlekit.files import require_file
from bundlekit.inputs.weights import check_weights
from tools.bundle_folder import TOLERANCE, image_shapes, largest_difference, load_network, read_config
from tools.formats import open_exported
from tools.zoo.contents import (
    INFERENCE,
    NEEDED,
    ROOT,
    WEIGHTS,
    configs_of,
    files_of,
    is_left_out,
    named_weights,
    weights_of,
)

SAID = (
    "name", "schema", "task", "description", "authors", "copyright",
    "monai_version", "pytorch_version", "numpy_version",
)  # fmt: skip
"""Texts that MONAI's schema of metadata.json demands, and the name."""

VERSIONS = ("monai_version", "pytorch_version", "numpy_version")

LARGEST_MB = 25


def read_distribution() -> tuple[str, str]:
    """Name and version of the packages."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return settings["metadata"]["name"], settings["metadata"]["version"]


def faults(bundle: Path, host: str | None = None) -> Iterator[str]:
    """What the zoo would send back; weights that are hosted elsewhere may be of any size."""
    missing = [name for name in NEEDED if not (bundle / name).is_file() or not (bundle / name).stat().st_size]
    yield from (f"{bundle / name}: is missing or empty; expected in every bundle; add it" for name in missing)
    links = [path for path in sorted(bundle.rglob("*")) if path.is_symlink() and not is_left_out(path, bundle)]
    yield from (f"{path}: is a link; expected the file or folder itself; copy it there" for path in links)
    if missing or links:
        return
    try:
        for path in configs_of(bundle):
            read_config(path)
        config = bundle / "configs/metadata.json"
        metadata = read_config(config)
        yield from faults_of_metadata(config, metadata)
        yield from faults_of_sizes(bundle, host)
        yield from faults_of_weights(bundle, metadata)
    except InputError as error:
        yield str(error)


def faults_of_metadata(config: Path, metadata: dict) -> Iterator[str]:
    """Texts and versions of a metadata.json that are missing or no versions."""
    name, version = read_distribution()
    own, changelog, required = (metadata.get(k) for k in ("version", "changelog", "required_packages_version"))
    entry = changelog.get(str(own)) if isinstance(changelog, dict) else None
    if not (re.fullmatch(r"\d+\.\d+\.\d+", str(own)) and isinstance(entry, str) and entry.strip()):
        yield f"{config}: version is {own}; expected x.y.z with an entry in changelog; add it"
    unsaid = [key for key in SAID if not (isinstance(metadata.get(key), str) and metadata[key].strip())]
    if unsaid:
        yield f"{config}: has no text for {', '.join(unsaid)}; expected one for each; add it"
    for key in (key for key in VERSIONS if key not in unsaid):
        if not re.fullmatch(r"\d+(\.\d+)+\S*", metadata[key]):
            yield f"{config}: {key} is {metadata[key]!r}; expected a version such as 1.2.3; correct it"
    found = required.get(name) if isinstance(required, dict) else required
    if found != version:
        yield f"{config}: required_packages_version has {name} {found}; expected {version}, as in setup.cfg; set it"


def faults_of_sizes(bundle: Path, host: str | None) -> Iterator[str]:
    """Files that are too large for the zoo, and hosted weights that would share an address."""
    hosted = [bundle / name for name in weights_of(bundle) if host is not None]
    doubled = [path for path in hosted if [other.name for other in hosted].count(path.name) > 1]
    if doubled:
        names = ", ".join(str(path.relative_to(bundle)) for path in doubled)
        yield f"{bundle}: {names} would have the same address; expected unique names; rename all but one"
    for path in files_of(bundle):
        if path not in hosted and path.stat().st_size > LARGEST_MB * 10**6:
            remedy = "pass --host" if path.parent == bundle / "models" else "make it smaller"
            yield f"{path}: has {path.stat().st_size / 10**6:.1f} MB; expected at most {LARGEST_MB}; {remedy}"


def faults_of_weights(bundle: Path, metadata: dict) -> Iterator[str]:
    """Faults of files that cannot be read, and of a model.pt whose weights are not the network's."""
    ckpt, *exported = (bundle / name for name in WEIGHTS)
    for name in named_weights(bundle):
        check_named(bundle / name)
    network = load_network(bundle)
    saved, own = torch.load(ckpt, map_location="cpu", weights_only=True), network.state_dict()
    for key, value in saved.items():
        if value.dtype != own[key].dtype:
            yield f"{ckpt}: {key} is of {value.dtype}; expected {own[key].dtype}; train and save it again"
            return
    configs = {"metadata.json": metadata, "inference.json": read_config(bundle / INFERENCE)}
    remedy = f"run make export BUNDLE={bundle.name}, unless model.pt or configs/ are at fault"
    for path in exported:
        for found, expected in faults_of_exported(path, network, image_shapes(bundle, network), configs):
            yield f"{path}: {found}; expected {expected}; {remedy}"


def faults_of_exported(
    path: Path, network: torch.nn.Module, shapes: list[tuple[int, ...]], configs: dict[str, dict]
) -> Iterator[tuple[str, str]]:
    """What an exported file is and what it should be: the same function, with the same weights and configs."""
    try:
        exported = open_exported(path)
        off = largest_difference(exported.network, network, shapes)
    except Exception as error:  # torch.jit.Error is nothing but an Exception
        cause = error.__cause__ or error
        yield f"cannot be loaded and run ({describe(cause)})", "the network as it was exported"
        return
    saved, state = network.state_dict(), exported.state_dict
    kinds = [{key: (value.dtype, value.shape) for key, value in weights.items()} for weights in (saved, state)]
    if kinds[0] != kinds[1] or not all(torch.equal(saved[key], state[key]) for key in saved):
        yield "has other weights than model.pt", "the same weights"
    elif not off <= TOLERANCE:
        yield f"differs from the network of inference.json by {off:.1e} of the largest output", f"at most {TOLERANCE:g}"
    for name, config in configs.items():
        try:
            same = json.loads(exported.configs[name]) == config
        except ValueError:
            same = False
        if not same:
            yield f"has no {name}, or another one than configs/", f"the {name} of configs/"


def check_named(path: Path) -> None:
    """A config names it, so it has to be a state dict, or an exported network where its ending says so."""
    if path.suffix == ".pt":
        check_weights(path)
        return
    require_file(path, "export it, or take its name out of the configs")
    open_exported(path)
