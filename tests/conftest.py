"""One seed and one thread for every test, so that a result does not depend on the machine's load or the order."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from monai.utils import set_determinism

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    set_determinism(0)
    yield
    set_determinism(None)
