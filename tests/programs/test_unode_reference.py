"""What the benchmark calls the reference is U-Node's own function, solved as in the paper."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

from unet_ode.nets import PAPER_SOLVER, UNode

REFERENCE = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools/bench/unode_reference.py"))


def test_reference_is_unode_with_the_paper_solver():
    network = UNode(2, 3, 2, **PAPER_SOLVER).double()  # in 64 bits rounding does not change the steps
    reference = REFERENCE["reference_network"](network.state_dict()).double()
    image, _ = REFERENCE["sample"](32, 64, torch.device("cpu"))
    with torch.no_grad():
        outputs = reference(image.double()), network(image.double())
    torch.testing.assert_close(*outputs, rtol=1e-8, atol=1e-8)
    assert REFERENCE["num_evaluations"](network) == sum(int(s.nfe[0]) for s in network.last_stats().values())


def test_evaluations_of_the_reference_are_counted():
    network = UNode(2, 3, 2, **PAPER_SOLVER)
    reference = REFERENCE["reference_network"](network.state_dict())
    image, _ = REFERENCE["sample"](32, 64, torch.device("cpu"))
    with torch.no_grad():
        network(image)
        for _ in range(2):
            REFERENCE["reset_evaluations"](reference)
            reference(image)
            counted = REFERENCE["num_evaluations"](reference)
            assert abs(counted - REFERENCE["num_evaluations"](network)) <= 12  # a step of dopri5 in two blocks at most
