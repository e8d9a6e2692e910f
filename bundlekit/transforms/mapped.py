"""Base class of dictionary transforms that apply an array transform to each key."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple

__all__ = ["Mapped"]


class Mapped(MapTransform):
    """Applies ``transform`` to each key and stores the result under the output key of the same place."""

    def __init__(self, keys, output_keys, transform, allow_missing_keys) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = ensure_tuple(output_keys)
        if len(self.output_keys) != len(self.keys):
            raise ValueError(
                f"got {len(self.output_keys)} output keys for {len(self.keys)} keys; give one for each key"
            )
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            d[output_key] = self.transform(d[key])
        return d
