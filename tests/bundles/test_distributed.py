"""Every bundle's multi_gpu_train.json with two processes, on CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import ceil

import pytest
import torch

from bundlekit.phantoms import make_dataset


@pytest.mark.slow
def test_two_processes_train_one_network(bundle, small, tmp_path):
    make_dataset(bundle.name, tmp_path / "data", training=4, validation=2, test=0, size=small.size)
    configs = [f"configs/{name}.json" for name in ("train", "fit_demo", "multi_gpu_train")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    places = {"dataset_dir": tmp_path / "data", "output_dir": tmp_path / "run", "ckpt_path": tmp_path / "model.pt"}
    overrides = {**places, **small.train, "max_epochs": 2}
    options = [text for key, value in overrides.items() for text in (f"--{key}", str(value))]
    result = subprocess.run(
        [*launch, "-m", "monai.bundle", "run", "--config_file", str(configs), *options],
        cwd=bundle,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    # four images, two a process
    per_image = json.loads((bundle / "configs/train.json").read_text())["batch_size"]
    assert state["epoch"] == 2 and state["iteration"] == 2 * ceil(2 / per_image)
    assert not any(name.startswith("module.") for name in torch.load(tmp_path / "model.pt", weights_only=True))
