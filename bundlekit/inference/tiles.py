"""Inference on images of any size, in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import ensure_tuple, ensure_tuple_rep
from tqdm import tqdm

from .assembly import AssembledOutput, find_border, pack_outputs, unpack_outputs
from .reflection import reflected_indices

__all__ = ["OverlapTileInferer"]


class OverlapTileInferer(Inferer):
    """Predict tiles with context around them and keep each tile's valid centre, so that no seam is left.

    The image is continued by reflection. Every tile is predicted from ``tile_size + 2 * margin`` voxels a side; the
    network may return just the centre (valid convolutions) or all of it (same padding; the margin is cut off). Tiles
    start at multiples of ``divisor``, hence the pooling grids of all tiles coincide and a valid network gives what one
    pass over the whole image would give. Only one batch of tiles exists at a time, in addition to input and output.

    Args:
        tile_size: voxels that a tile contributes at most, per side. As few tiles as that allows cover the image, all of
            one size, no larger than needed: a multiple of ``divisor``, plus the rest of ``tile_size`` by it.
        margin: voxels of context on each side; the ``margin`` of a valid network. For a network with same padding, what
            its padding may reach without being seen in the kept centre.
        batch_size: tiles in a forward pass; changes memory and speed, not the result.
        divisor: product of the network's strides (16 for a U-Net of five levels).
        device: where the output is put together; the input's device by default.
        network_crops: call ``network(tiles, margin=margin)``, for one that gives the centre and computes no more than
            that needs, as :class:`~unet_ode.nets.VGGUNet` does.
        progress: show a progress bar over the batches of tiles.

    Shape:
        - inputs: (N, C, *spatial), any size.
        - output: (N, K, *spatial), K channels as the network gives; for a network that returns a dict or several
          tensors, a dict or a tuple of outputs. One of them has the size of the image, the others any multiple or whole
          part of it; those of the image's size have its metadata.

    Raises:
        ValueError: when ``tile_size`` is below ``divisor`` or ``margin`` below 0; in a call, when no output of the
            network is as large as its input or smaller by ``2 * margin``, or when an output of another size has no
            whole number of pixels for the image or a tile.

    Source:
        Ronneberger et al. 2015, section 2 and figure 2 ("overlap-tile strategy").

    Example:
        >>> tiles = OverlapTileInferer(tile_size=8, margin=2, divisor=4)
        >>> image = torch.rand(1, 1, 13, 21)
        >>> torch.equal(tiles(image, torch.nn.Identity()), image)
        True
    """

    def __init__(
        self,
        tile_size: Sequence[int] | int,
        margin: int,
        batch_size: int = 1,
        divisor: int = 16,
        device: torch.device | str | None = None,
        network_crops: bool = False,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if min(ensure_tuple(tile_size)) < divisor:
            raise ValueError(f"tile_size is {tile_size}; expected at least the divisor, {divisor}")
        if margin < 0:
            raise ValueError(f"margin is {margin}; expected 0 or more")
        self.tile_size = tile_size
        self.margin = margin
        self.batch_size = batch_size
        self.divisor = divisor
        self.device = device
        self.network_crops = network_crops
        self.progress = progress

    def _tiles(self, size: Sequence[int]) -> tuple[list[int], Iterator[tuple[int, ...]], int]:
        sides, starts = [], []
        for full, wanted in zip(size, ensure_tuple_rep(self.tile_size, len(size)), strict=True):
            largest = wanted // self.divisor  # steps from tile to tile, in strides, since the pooling grids coincide
            share = -(-full // -(-full // (largest * self.divisor)))  # of as few tiles as possible, all of one size
            step = -(-share // self.divisor) * self.divisor
            sides.append(step + wanted % self.divisor)
            starts.append(range(0, full, step))
        return sides, product(*starts), int(torch.tensor([len(s) for s in starts]).prod())

    def _cut(self, image: torch.Tensor, start: Sequence[int], sides: Sequence[int]) -> torch.Tensor:
        indices = [
            reflected_indices(first - self.margin, side + 2 * self.margin, full)
            for first, side, full in zip(start, sides, image.shape[1:], strict=True)
        ]
        lowest = [int(index.min()) for index in indices]
        for axis, (index, low) in enumerate(zip(indices, lowest, strict=True), start=1):
            image = image.narrow(axis, low, int(index.max()) - low + 1)  # a view: selecting may copy all that is there
        for axis, (index, low) in enumerate(zip(indices, lowest, strict=True), start=1):
            image = image.index_select(axis, (index - low).to(image.device))
        return image

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        size, device = image.shape[2:], self.device or image.device
        sides, starts, num_tiles = self._tiles(size)
        jobs = [(n, start) for start in starts for n in range(image.shape[0])]
        keys: list[Any] | None = None
        outputs: list[AssembledOutput] = []
        if self.network_crops:
            kwargs = {**kwargs, "margin": self.margin}
        batches = range(0, len(jobs), self.batch_size)
        for first in tqdm(batches, desc="tiles", unit="batch", leave=False, disable=not self.progress or num_tiles < 2):
            batch = jobs[first : first + self.batch_size]
            tiles = torch.stack([self._cut(image[n], start, sides) for n, start in batch])
            keys, parts = unpack_outputs(network(tiles, *args, **kwargs))
            if first == 0:
                border = find_border(parts, sides, self.margin, self.network_crops)
                outputs = [AssembledOutput(part, sides, border, size, len(image), device) for part in parts]
            for output, part in zip(outputs, parts, strict=True):
                for tile, (n, start) in zip(part, batch, strict=True):
                    output.add(tile, n, start)
        whole = [output.values for output in outputs]
        if isinstance(inputs, MetaTensor):
            whole = [MetaTensor(part, meta=inputs.meta) if part.shape[2:] == size else part for part in whole]
        return pack_outputs(keys, whole)
