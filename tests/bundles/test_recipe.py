"""The optic disc bundle's docs/recipe.md, run as it stands: phase 1 and 2 on the hippocampus, in 3-D."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundlekit.phantoms import make_dataset

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
BLOCKS = re.findall(
    r"```python\n(.*?)```", (BUNDLES / "optic_disc_fundus_segmentation/docs/recipe.md").read_text(), re.S
)


def follow(**settings: Any) -> dict[str, Any]:
    """What the page's program leaves behind, with other settings in place of its first block."""
    first, *rest = BLOCKS
    names: dict[str, Any] = {}
    exec(first, names)
    assert settings.keys() <= names.keys(), f"the page begins with {[name for name in names if name[0] != '_']}"
    names.update(settings)
    for block in rest:
        exec(compile(block, "recipe.md", "exec"), names)
    return names


def check(found: dict[str, Any], least_dice: float) -> None:
    first, second = found["localizer"].state_dict(), found["unet"].state_dict()
    assert found["moved"] == [name for name in second if name.startswith("encoder.")]
    assert all(torch.equal(first[name], second[name]) for name in found["moved"])
    assert np.mean(found["distances"]) < 0.6 * np.mean(found["guesses"]), (found["distances"], found["guesses"])
    assert np.mean(found["dice"]) > least_dice, found["dice"]


def test_on_phantoms(tmp_path):
    make_dataset("hippocampus_mri_segmentation", tmp_path, training=8, validation=0, test=4, size=32)
    settings = {
        "SIZE": (24, 32, 24),
        "CHANNELS": (4, 8, 16),
        "LOCALIZER_EPOCHS": 25,
        "UNET_EPOCHS": 50,
        "BATCH_SIZE": 2,
    }
    check(follow(DATA=tmp_path / "dataset.json", **settings), least_dice=0.7)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of real images")
def test_on_real_volumes(tmp_path):
    source, bundle = Path(os.environ["DATA_ROOT"], "msd_hippocampus"), BUNDLES / "hippocampus_mri_segmentation"
    command = [sys.executable, "scripts/prepare_data.py", "--source", str(source), "--output", str(tmp_path)]
    subprocess.run(command, cwd=bundle, check=True)
    check(follow(DATA=tmp_path / "dataset.json", LOCALIZER_EPOCHS=8, UNET_EPOCHS=4), least_dice=0.7)
