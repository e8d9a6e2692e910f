"""Runs a test over every bundle, config or overlay that exists: a new bundle is covered by being there.

A test asks for one of these arguments: ``bundle`` (a folder); ``config`` (train.json, inference.json and pretrain.json,
which few bundles have, plain and under each overlay that is for it); ``overlay`` (only those under an overlay);
``pair`` (train.json and inference.json, plain and under each overlay that is for both). The fixture ``small`` tells how
a run of the test's bundle ends in seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parents[2]
STANDALONE = ("train", "inference", "pretrain")
BASES = {
    "evaluate": ("train",),
    "evaluate_pretrain": ("pretrain",),
    "multi_gpu_train": ("train",),
    "fit": ("train",),
    "fit_demo": ("train", "pretrain"),
    "data": ("train",),
    "loss": ("train",),
    "track": ("train",),
    "net": ("train", "inference"),
    "engine": ("train", "inference"),
    "amp": ("train", "inference", "pretrain"),
}
"""The configs that an overlay goes over, where they exist, by its name or what stands before its first underscore."""


@dataclass(frozen=True)
class Config:
    """One of a bundle's standalone configs, plain or under an overlay."""

    bundle: Path
    base: str
    overlay: Path | None = None

    def __str__(self) -> str:
        return f"{self.bundle.name}/{self.base}" + (f"+{self.overlay.stem}" if self.overlay else "")

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.bundle / f"configs/{self.base}.json", self.overlay) if path]

    @property
    def ids_of_all_bases(self) -> set[str]:
        """The top-level ids of each config that the overlay is for."""
        bases = bases_of(self.overlay) if self.overlay else (self.base,)
        return {name for base in bases for name in ConfigParser.load_config_file(self.bundle / f"configs/{base}.json")}

    def parser(self) -> ConfigParser:
        """What MONAI makes of the files together."""
        try:
            parser = ConfigParser(ConfigParser.load_config_files(self.files))
        except (KeyError, IndexError, ValueError) as error:
            pytest.fail(
                f"{self}: MONAI cannot merge the files: {error!r}. The parent of a key with '::' has to be in every "
                "config that the overlay is for: give the whole top-level id instead",
                pytrace=False,
            )
        parser.parse()
        return parser


def bases_of(overlay: Path) -> tuple[str, ...]:
    kind = overlay.stem if overlay.stem in BASES else overlay.stem.split("_")[0]
    if kind not in BASES:
        raise pytest.UsageError(f"{overlay}: unknown kind of overlay, expected one of {list(BASES)}: rename the file")
    return tuple(base for base in BASES[kind] if overlay.with_name(f"{base}.json").exists())


def find_overlays(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.glob("configs/*.json") if path.stem not in {"metadata", *STANDALONE})


def find_standalone(bundle: Path) -> list[str]:
    return [base for base in STANDALONE if (bundle / f"configs/{base}.json").exists()]


BUNDLES = sorted(folder.parent for folder in ROOT.glob("bundles/*/configs"))
assert BUNDLES, f"no bundle in {ROOT}: expected folders bundles/*/configs"
FILES = [(bundle, overlay) for bundle in BUNDLES for overlay in [None, *find_overlays(bundle)]]
CONFIGS = [
    Config(bundle, base, overlay)
    for bundle, overlay in FILES
    for base in (bases_of(overlay) if overlay else find_standalone(bundle))
]
ARGUMENTS = {
    "bundle": {bundle.name: bundle for bundle in BUNDLES},
    "config": {str(config): config for config in CONFIGS},
    "overlay": {str(config): config for config in CONFIGS if config.overlay},
    "pair": {
        str(config).replace("/inference", ""): (Config(config.bundle, "train", config.overlay), config)
        for config in CONFIGS
        if config.base == "inference"
    },
}
EXAMPLES = ("nuclei_microscopy_segmentation", "hippocampus_mri_segmentation")
"""One bundle for images and one for volumes: on them `make test` runs what is marked ``by_example``."""
assert {*EXAMPLES} <= {bundle.name for bundle in BUNDLES}
IMAGE_SIZE_PX, VOLUME_SIZE = 96, 32
SMALL_VOLUMES = {"patch_size": [16, 16, 16], "crop_size": [24, 24, 24], "crops_per_volume": 1}
"""Instead of a volume's true patches, which cost a CPU minutes; all 3-D networks train on 16 voxels."""
SMALL_SLICES = {"patch_size": [32, 32], "crops_per_volume": 1}
"""The same where patches are slices: batch norm needs more than one pixel at the deepest level."""


@dataclass(frozen=True)
class Small:
    """Extent of phantoms, and overrides by the name of a standalone config, for runs that end in seconds."""

    size: int
    train: dict[str, Any]
    inference: dict[str, Any]


@pytest.fixture
def small(request) -> Small:
    params = request.node.callspec.params
    bundle = params["bundle"] if "bundle" in params else params["overlay"].bundle
    train, inference = (json.loads((bundle / f"configs/{name}.json").read_text()) for name in ("train", "inference"))
    if train["checks"]["spatial_dims"] == 2:
        return Small(IMAGE_SIZE_PX, {}, {})
    smaller = SMALL_VOLUMES if len(train["patch_size"]) == 3 else SMALL_SLICES
    overrides = [{key: value for key, value in smaller.items() if key in config} for config in (train, inference)]
    return Small(VOLUME_SIZE, *overrides)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in ARGUMENTS.keys() & set(metafunc.fixturenames):
        by_example = metafunc.definition.get_closest_marker("by_example") is not None
        params = []
        for test_id, value in ARGUMENTS[name].items():
            marks = [pytest.mark.slow] if by_example and value.name not in EXAMPLES else []
            if by_example:  # with several workers, these tests share the training that one of them made
                marks.append(pytest.mark.xdist_group(value.name))
            params.append(pytest.param(value, marks=marks, id=test_id))
        metafunc.parametrize(name, params)
