"""MONAI Deploy's operator segments with a bundle's model.ts, and the configs in it, as the bundle does."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = [pytest.mark.consumer, pytest.mark.xdist_group("deploy")]
APP = Path(__file__).with_name("deploy_app.py")
VOLUME = Path(__file__).resolve().parents[2] / "bundles/hippocampus_mri_segmentation"


def compare(consumers: SimpleNamespace, bundle: Path, kind: str, folder: Path) -> None:
    """Segment a phantom with the SDK and with the bundle; both in the same environment."""
    python = consumers.require("deploy")
    [phantom] = consumers.make_images(bundle, folder / "data", test=1)
    wanted = consumers.segment(python, bundle, phantom.files[0], folder / "out")
    alone = shutil.copy(bundle / "models/model.ts", folder / "model.ts")
    model = {"HOLOSCAN_MODEL_PATH": str(alone)}
    consumers.call(python, APP, folder / "found.npz", kind, *phantom.files, cwd=folder, **model)
    with np.load(folder / "found.npz") as found:
        turned = found["labels"].T  # the operator puts the axes of a volume in DICOM's order; a picture has MONAI's
        consumers.assert_same((turned, found["affine"]), wanted)


def test_operator_segments_as_the_bundle_does(bundle, consumers, tmp_path):
    compare(consumers, bundle, "loaded", tmp_path)


def test_operator_takes_a_volume_in_the_order_of_dicom(consumers, tmp_path):
    compare(consumers, VOLUME, "dicom", tmp_path)
