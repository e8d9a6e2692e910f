"""Light added at random: what it adds, where, and that it is one draw for all images of an item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundlekit.transforms import RandBackground, RandBackgroundd


def image(channels: int = 1, shape: tuple[int, ...] = (96, 80)) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 3, (channels, *shape))


def drawn(seed: int, **ranges) -> RandBackground:
    return RandBackground(prob=1, **ranges).set_random_state(seed)


@pytest.mark.parametrize("seed", range(5))
def test_only_light_is_added_and_no_more_than_its_strength(seed):
    before = image(3)
    added = drawn(seed, strength=(0.2, 0.3), threshold=(-0.2, 0.2), scale=(16, 24))(before) - before
    assert added.min() > -1e-5 and 0.15 * np.ptp(before) < added.max() < 0.3 * np.ptp(before) + 1e-5
    assert np.allclose(added[0], added[1], atol=1e-5) and np.allclose(added[0], added[2], atol=1e-5)


def test_a_small_edge_gives_regions_and_a_large_one_a_slope():
    """Between nothing and the full strength lie few pixels where the edge is hard, and most where it is soft."""
    shares = {}
    for edge in (0.01, 1.0):
        added = drawn(0, strength=(1, 1), edge=(edge, edge), threshold=(0, 0), scale=(24, 24))(image()) - image()
        level = added / np.ptp(image())
        shares[edge] = np.mean((level > 0.05) & (level < 0.95))
        assert 0.1 < level.mean() < 0.9
    assert shares[0.01] < 0.15 and shares[1.0] > 0.9


@pytest.mark.parametrize("scale", [12, 40])
def test_regions_are_as_large_as_the_scale(scale):
    """Along a line a field with nodes of that distance changes its sign about as often as the nodes do: every 2."""
    changes = []
    for seed in range(20):
        added = drawn(seed, edge=(0.01, 0.01), threshold=(0, 0), scale=(scale, scale))(image(1, (240, 240))) - image(
            1, (240, 240)
        )
        above = added[0] > added.max() / 2
        changes.append(np.mean(above[1:] != above[:-1]))
    assert 0.25 / scale < np.mean(changes) < 0.75 / scale


def test_nothing_happens_with_probability_0_and_something_with_half():
    before = image()
    assert np.array_equal(RandBackground(prob=0)(before), before.astype(np.float32))
    background = RandBackground(prob=0.5).set_random_state(0)
    changed = [not np.array_equal(background(before), before.astype(np.float32)) for _ in range(40)]
    assert 10 < sum(changed) < 30


def test_a_seed_gives_the_same_and_another_one_does_not():
    first, again, other = (drawn(seed)(image()) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_volumes_tensors_and_metadata():
    volume = torch.as_tensor(image(2, (20, 24, 28)))
    out = drawn(0)(MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 2, 2, 1]))))
    assert isinstance(out, MetaTensor) and out.dtype == torch.float32 and out.shape == volume.shape
    assert out.affine[0, 0] == 2


def test_an_item_gets_one_draw_for_images_of_one_size():
    grey, colours = image(1), image(3)
    items = RandBackgroundd(["a", "b"], prob=1).set_random_state(0)({"a": grey, "b": colours, "label": grey})
    a, b = ((items[key] - before) / np.ptp(before) for key, before in (("a", grey), ("b", colours)))
    assert np.allclose(a[0], b[0], atol=1e-5) and a.max() > 0
    assert items["label"] is grey
    with pytest.raises(KeyError):
        RandBackgroundd("none")({"a": grey})
    assert RandBackgroundd("none", allow_missing_keys=True)({"a": grey})["a"] is grey


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"strength": (0.5, 0.1)}, r"strength is \(0.5, 0.1\); expected two numbers, the smaller one first"),
        ({"threshold": (0.5,)}, r"threshold is \(0.5,\); expected two numbers"),
        ({"scale": (0, 10)}, r"scale is \(0, 10\); expected numbers above 0"),
        ({"edge": (-1, 10)}, r"edge is \(-1, 10\); expected numbers above 0"),
    ],
)
def test_ranges_that_are_none_are_named(ranges, message):
    with pytest.raises(ValueError, match=message):
        RandBackground(**ranges)
