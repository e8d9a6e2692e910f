"""Two pictures, a small network and the evaluator that shows it them."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, LoadImaged, ScaleIntensityd
from PIL import Image

from unet_ode.nets import UNode


@pytest.fixture
def items(tmp_path):
    """Smooth and rough pictures: they take different numbers of evaluations."""
    values = np.random.RandomState(0)
    sizes = {"a.png": (24, 16), "b.c.png": (48, 16)}  # width, height
    for name, (width, height) in sizes.items():
        picture = values.randint(0, 256, (height, width, 3)).astype(np.uint8)
        picture[:, : width // 2] = 128
        Image.fromarray(picture).save(tmp_path / name)
    return [{"image": str(tmp_path / name)} for name in sizes]


@pytest.fixture
def network():
    return UNode(2, 3, 2, channels=(4, 8))


@pytest.fixture
def evaluator():
    """Makes an evaluator of picture or volume files."""

    def make(items, network, handlers, inferer=None, batch_size=1, transforms=()):
        load = [LoadImaged("image", ensure_channel_first=True), ScaleIntensityd("image"), *transforms]
        return SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(items, Compose(load)), batch_size=batch_size),
            network=network,
            inferer=inferer,
            val_handlers=handlers,
        )

    return make
