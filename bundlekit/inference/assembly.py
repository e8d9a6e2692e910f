"""Puts the outputs of a network for tiles of an image together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch

__all__ = ["AssembledOutput", "find_border", "pack_outputs", "unpack_outputs"]


def unpack_outputs(outputs: Any) -> tuple[list[Any] | None, list[torch.Tensor]]:
    """The keys of a network's outputs, None where these are no dict, and the tensors.

    Raises:
        ValueError: where an output is no tensor.

    Example:
        >>> unpack_outputs({"edges": torch.zeros(1), "mask": torch.ones(1)})
        (['edges', 'mask'], [tensor([0.]), tensor([1.])])
    """
    keys = sorted(outputs, key=str) if isinstance(outputs, Mapping) else None
    parts = outputs if keys is None else [outputs[key] for key in keys]
    parts = [parts] if isinstance(parts, torch.Tensor) else parts
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        raise ValueError(f"the network returned a {type(outputs).__name__}; expected a tensor, or several of them")
    return keys, list(parts)


def pack_outputs(keys: Sequence[Any] | None, parts: Sequence[torch.Tensor]) -> Any:
    """The opposite of :func:`unpack_outputs`, as MONAI's sliding window returns it: a dict, a tensor, or a tuple."""
    if keys is not None:
        return dict(zip(keys, parts, strict=True))
    return parts[0] if len(parts) == 1 else tuple(parts)


def find_border(parts: Sequence[torch.Tensor], sides: Sequence[int], margin: int, crops: bool) -> int:
    """The border that is to be cut off each output for a tile, in the image's pixels: ``margin``, or 0 if it is off.

    Args:
        parts: the outputs, of which one has the tile's size, with or without the margin.
        sides: of the tile without the margin.
        margin: border of the tile.
        crops: whether the network was asked for the tile without the margin.

    Raises:
        ValueError: where none has either size.
    """
    whole = [side + 2 * margin for side in sides]
    sizes = [list(part.shape[2:]) for part in parts]
    if list(sides) in sizes and (crops or whole not in sizes):
        return 0
    if whole in sizes:
        return margin
    raise ValueError(
        f"the network returned {tuple(sizes[0])} for tiles of {tuple(whole)}; expected that size or {tuple(sides)}: "
        "set margin to the border that the network crops on each side, and tile_size to a size that it accepts"
    )


class AssembledOutput:
    """One output of a network for a whole image, of which tiles are added.

    Args:
        tiles: the output for the first batch of tiles, of any size that is a multiple or a whole part of theirs.
        sides: of a tile without its margin, in pixels of the image.
        border: what of the margin the output has, in pixels of the image.
        size: of the image.
        number: of images.
        device: of the result.

    Raises:
        ValueError: where the image or a tile has no whole number of the output's pixels.
    """

    def __init__(
        self,
        tiles: torch.Tensor,
        sides: Sequence[int],
        border: int,
        size: Sequence[int],
        number: int,
        device: torch.device | str,
    ) -> None:
        seen = [side + 2 * border for side in sides]
        self.scale = [Fraction(found, side) for found, side in zip(tiles.shape[2:], seen, strict=True)]
        if not all(1 in (ratio.numerator, ratio.denominator) for ratio in self.scale):
            expected = "multiples or whole parts of that"
            raise ValueError(f"the network returned {tuple(tiles.shape[2:])} for {tuple(seen)}; expected {expected}")
        self.sides, self.border, self.size = sides, border, size
        shape = (number, tiles.shape[1], *self._scaled(size))
        self.values = tiles.new_empty(shape, device=device)

    def _scaled(self, lengths: Sequence[int]) -> list[int]:
        """Lengths of the image in pixels of the output."""
        scaled = [length * ratio for length, ratio in zip(lengths, self.scale, strict=True)]
        if not all(length.denominator == 1 for length in scaled):
            ratio = max(ratio.denominator for ratio in self.scale)
            raise ValueError(
                f"the network returns an output of 1/{ratio} of the image's size, which has no whole number of pixels "
                f"for {tuple(lengths)}; expected an image, tile_size, margin and divisor that are multiples of {ratio}"
            )
        return [int(length) for length in scaled]

    def add(self, tile: torch.Tensor, index: int, start: Sequence[int]) -> None:
        """Put a tile, (K, *spatial), into image number ``index``, where the tile without its margin starts there."""
        kept = [min(side, full - first) for side, full, first in zip(self.sides, self.size, start, strict=True)]
        border = self._scaled([self.border] * len(kept))
        place = self.values[index]
        for axis, (at, length, edge) in enumerate(zip(self._scaled(start), self._scaled(kept), border, strict=True), 1):
            place, tile = place.narrow(axis, at, length), tile.narrow(axis, edge, length)
        place.copy_(tile)
