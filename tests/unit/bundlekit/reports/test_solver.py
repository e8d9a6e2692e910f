"""Counts of evaluations against the calls of each block's field."""

import copy
import json

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.inferers import SimpleInferer
from monai.transforms import CastToTyped, SpatialPadd
from torch import nn

from bundlekit.inference.symmetries import SymmetryInferer
from bundlekit.inference.tiles import OverlapTileInferer
from bundlekit.reports.receptive_field_picture import ReceptiveFieldPicture
from bundlekit.reports.solver import SolverReport
from unet_ode.nets import UNet, UNode
from unet_ode.ode import ODEBlock


def num_hooks(network):
    return sum(len(module._forward_hooks) for module in network.modules())


class Recording(SimpleInferer):
    """Keeps every sample that the network gets, image by image."""

    def __init__(self, inferer):
        super().__init__()
        self.inferer = inferer
        self.samples = []

    def __call__(self, inputs, network, *args, **kwargs):
        self.samples.append([])

        def record(x):
            self.samples[-1].extend(x)
            return network(x)

        return self.inferer(inputs, record)


@torch.no_grad()
def count_field_calls(network, samples):
    """(blocks, samples): how often each block called its field for each sample, one sample at a time."""
    calls = []

    def count(field, inputs, output):
        calls[-1][field.block_name] += 1

    network = copy.deepcopy(network).eval()
    blocks = [module for module in network.modules() if isinstance(module, ODEBlock)]
    for block in blocks:
        block.func.block_name = block.name
        block.func.register_forward_hook(count)
    for sample in samples:
        calls.append(dict.fromkeys((block.name for block in blocks), 0))
        network(sample[None])
    return {block.name: [call[block.name] for call in calls] for block in blocks}


def test_report_counts_every_tile_and_view(evaluator, items, network, tmp_path):
    """And not the pass of the picture, although its handler comes first."""
    tiles = OverlapTileInferer(tile_size=16, margin=4, batch_size=2, divisor=2)
    inferer = Recording(SymmetryInferer(tiles, symmetries="flips", sigmoid=True))
    handlers = [ReceptiveFieldPicture(network, (3, 5), tmp_path / "out"), SolverReport(network, tmp_path / "out")]
    # in float64, as a sample's steps must not hang on the rounding that its batch brings
    evaluator(items, network.double(), handlers, inferer, transforms=[CastToTyped("image", torch.float64)]).run()
    report = json.loads((tmp_path / "out/nfe.json").read_text())
    assert list(report) == ["images", "mean"] and len(report["images"]) == len(inferer.samples) == 2
    different = 0
    for row, name, samples, num in zip(
        report["images"], ["a.png", "b.c.png"], inferer.samples, (2 * 3, 3 * 3), strict=True
    ):
        calls = count_field_calls(network, samples)
        assert row["image"] == name and list(row["nfe"]) == ["down1", "embedding", "up1"] == list(calls)
        for block, counts in calls.items():
            # tiles of a picture times views; the calls are whole numbers, so that only the mean is rounded
            assert row["num_samples"][block] == len(counts) == num
            assert row["nfe"][block] == pytest.approx(np.mean(counts), rel=1e-12)
            assert (row["nfe_min"][block], row["nfe_max"][block]) == (min(counts), max(counts))
            different += min(counts) < max(counts)
        assert row["total"] == pytest.approx(sum(map(np.mean, calls.values())), rel=1e-12)
    assert different > 0, "all samples took the same: the test would not notice mixed counts"
    a, b = report["images"]
    assert report["mean"] == pytest.approx(
        {block: (a["nfe"][block] + b["nfe"][block]) / 2 for block in a["nfe"]}
        | {"total": (a["total"] + b["total"]) / 2}
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"nfe.json", "a_erf.png", "b.c_erf.png"}


def test_report_of_equal_steps_is_known_beforehand(evaluator, items, tmp_path, capsys):
    """Two steps of rk4 are 8 evaluations, in each of three blocks; the second run does not add to the first."""
    network = UNode(2, 3, 2, channels=(4, 8), method="rk4", num_steps=2)
    engine = evaluator(items, nn.DataParallel(network), [SolverReport(nn.DataParallel(network), tmp_path)])
    for _ in range(2):
        engine.run()
        assert num_hooks(network) == 0
    assert capsys.readouterr().out == 2 * (
        "NFE      down1  embedding  up1  total\n"
        "a.png      8.0        8.0  8.0   24.0\n"
        "b.c.png    8.0        8.0  8.0   24.0\n"
        "mean       8.0        8.0  8.0   24.0\n"
    )
    report = json.loads((tmp_path / "nfe.json").read_text())
    assert report["mean"] == {"down1": 8, "embedding": 8, "up1": 8, "total": 24} and len(report["images"]) == 2


def test_hooks_go_and_the_error_comes_through(evaluator, items, network, tmp_path):
    engine = evaluator(items, network, [SolverReport(network, tmp_path / "out")], transforms=[SpatialPadd("image", 25)])
    running = []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: running.append(num_hooks(network)))
    with pytest.raises(ValueError, match="the network got 25 voxels along axis 2"):
        engine.run()
    assert (running, num_hooks(network), (tmp_path / "out").exists()) == ([3], 0, False)


def test_what_cannot_be_reported_is_refused(evaluator, items, network, tmp_path):
    with pytest.raises(ValueError, match="got a UNet without ODE blocks; expected a network such as UNode: disable"):
        SolverReport(UNet(2, 1, 2, channels=(2, 4)), tmp_path)
    blocks = nn.Sequential(*(ODEBlock(nn.Identity(), name="same") for _ in range(2)))
    with pytest.raises(ValueError, match="called same, same; expected unique names"):
        SolverReport(blocks, tmp_path)
    engine = evaluator([items[0], items[0]], network, [SolverReport(network, tmp_path)], batch_size=2)
    with pytest.raises(ValueError, match=r"the batch holds 2 images; expected 1.*set the dataloader's batch_size to 1"):
        engine.run()
    engine = evaluator(items, network, [SolverReport(copy.deepcopy(network), tmp_path)])
    with pytest.raises(RuntimeError, match=r"a\.png: no pass through the ODE blocks down1, embedding, up1; expected"):
        engine.run()
