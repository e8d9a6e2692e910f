"""Runs a bundle's configs in this process as ``python -m monai.bundle run`` does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from PIL import Image

from bundlekit.phantoms import make_dataset
from tools.arguments import BUNDLES

__all__ = ["Sizes", "is_of_objects", "one_epoch", "parse_training", "phantoms", "segment"]

FULL_SIZE = {
    "brain_tumor_mri_segmentation": 128,
    "gland_histology_segmentation": 420,
    "infant_brain_mri_segmentation": 96,
    "lung_ct_segmentation": 128,
    "membrane_em_segmentation": 512,
    "nuclei_microscopy_segmentation": 256,
    "optic_disc_fundus_segmentation": 600,
}
"""Extent of the phantoms to segment, in px or voxels; others have the size of their kind."""
SMALL_IMAGE_PX, SMALL_VOLUME, SMALL_TO_SEGMENT = 96, 32, 48
SMALL = {"patch_size": [16, 16, 16], "crop_size": [24, 24, 24], "crops_per_volume": 1}
SMALL_SLICES = {"patch_size": [32, 32], "crops_per_volume": 1}


class Sizes:
    """Extent of a bundle's phantoms, and what a run on them changes in the configs.

    Args:
        bundle: its name.
        small: whether a run has to end in seconds on a CPU.
    """

    def __init__(self, bundle: str, small: bool) -> None:
        config = read(bundle, "train")
        volumes = config["checks"]["spatial_dims"] == 3
        slices = volumes and len(config["patch_size"]) == 2
        changes = {} if not small or not volumes else SMALL_SLICES if slices else SMALL
        self.train = {name: value for name, value in changes.items() if name in config}
        # the phantoms of glands have the network's scale
        self.inference = {"spacing": 1} if bundle.startswith("gland") else {}
        self.to_train_on = (SMALL_VOLUME if volumes else SMALL_IMAGE_PX) if small else None
        self.to_segment = FULL_SIZE.get(bundle)
        if small and self.to_segment:
            self.to_segment = SMALL_TO_SEGMENT if volumes else SMALL_IMAGE_PX


def read(bundle: str, name: str) -> dict[str, Any]:
    return json.loads((BUNDLES / bundle / f"configs/{name}.json").read_text(encoding="utf-8"))


def is_of_objects(bundle: str) -> bool:
    """Whether the numbers in a bundle's masks are those of objects."""
    return "label_values" not in read(bundle, "train")["checks"]


def phantoms(bundle: str, folder: Path, size: int | None, training: int = 0, test: int = 0) -> Path:
    """A folder with phantoms; training images come with one for validation."""
    make_dataset(bundle, folder, training=training, validation=min(training, 1), test=test, size=size)
    return folder


def run_config(bundle: str, names: Sequence[str], epochs: int | None = None, **overrides: Any) -> None:
    """``python -m monai.bundle run`` on configs by name; ends a training after so many epochs of this run."""
    folder = BUNDLES / bundle
    files = [str(folder / f"configs/{name}.json") for name in names]
    workflow = ConfigWorkflow(
        files, str(folder / "configs/metadata.json"), logging_file=False, bundle_root=str(folder), num_workers=0,
        **overrides,
    )  # fmt: skip
    workflow.initialize()
    if epochs is not None:
        trainer = workflow.parser.get_parsed_content("train::trainer")
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=epochs), lambda engine: engine.terminate())
    workflow.run()
    workflow.finalize()


def segment(bundle: str, data: Path, output: Path, **overrides: Any) -> dict[str, np.ndarray]:
    """Masks of a folder of images by the bundle's inference.json, by the names of their files.

    Args:
        bundle: its name.
        data: folder.
        output: new folder.
        overrides: of the config.
    """
    run_config(bundle, ["inference"], dataset_dir=str(data), output_dir=str(output), **overrides)
    masks = {}
    for path in sorted(output.glob("*_seg.*")):
        masks[path.name] = np.asarray(Image.open(path) if path.suffix == ".png" else nibabel.load(path).dataobj)
    return masks


def one_epoch(bundle: str, data: Path, output: Path, resume: bool, **overrides: Any) -> dict[str, Any]:
    """Train one epoch of three, from the beginning or from the state in ``output``; the history so far.

    Args:
        bundle: its name.
        data: folder with training and validation images.
        output: for state.pt, model.pt and history.json.
        resume: whether to continue.
        overrides: of the config.
    """
    places = {"dataset_dir": str(data), "output_dir": str(output), "ckpt_path": str(output / "model.pt")}
    lengths = {"max_epochs": 3, "val_interval": 3, "resume": resume}
    with contextlib.ExitStack() as stack:
        if bundle.startswith("optic"):
            lengths["pretrained_path"] = str(BUNDLES / bundle / "models/localizer.pt")
        stack.callback(set_determinism, None)
        run_config(bundle, ["train", "fit_demo"], epochs=1, **places, **lengths, **overrides)
    return json.loads((output / "history.json").read_text(encoding="utf-8"))


def parse_training(bundle: str, data: Path, output: Path, **overrides: Any) -> ConfigParser:
    """The bundle's train.json with fit_demo.json, ready for ``get_parsed_content``; seeds are set again."""
    set_determinism(0)
    folder = BUNDLES / bundle
    parser = ConfigParser(ConfigParser.load_config_files([folder / f"configs/{n}.json" for n in ("train", "fit_demo")]))
    parser.read_meta(folder / "configs/metadata.json")
    places = {"bundle_root": str(folder), "dataset_dir": str(data), "output_dir": str(output), "num_workers": 0}
    parser.update({**places, "ckpt_path": str(output / "model.pt"), **overrides})
    return parser
