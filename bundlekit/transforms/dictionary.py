"""Base class of dictionary transforms that apply an array transform to each key."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

__all__ = ["DictionaryTransform", "pair_keys"]


def pair_keys(keys: tuple[Hashable, ...], output_keys: KeysCollection) -> tuple[Hashable, ...]:
    """The output keys as a tuple.

    Args:
        keys: of the inputs.
        output_keys: one for each of them.

    Raises:
        ValueError: where there are not as many as keys.

    Example:
        >>> pair_keys(("image",), "weight")
        ('weight',)
    """
    names = ensure_tuple(output_keys)
    if len(names) != len(keys):
        raise ValueError(f"got {len(names)} output keys for {len(keys)} keys; give one for each key")
    return names


class DictionaryTransform(MapTransform):
    """Applies ``transform`` to each key and stores the result under the output key of the same place."""

    def __init__(
        self,
        keys: KeysCollection,
        output_keys: KeysCollection,
        transform: Any,
        allow_missing_keys: bool,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = pair_keys(self.keys, output_keys)
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            d[output_key] = self.transform(d[key])
        return d
