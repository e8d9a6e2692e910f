"""Draws the effective receptive field at one pixel for each image."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.data import MetaTensor, create_file_basename
from monai.engines import Evaluator
from monai.utils import convert_to_numpy
from torch import nn

from ..files import write_atomically
from .batches import image_file_name, images_in_batch
from .receptive_field import check_pixel, draw_receptive_field, effective_receptive_field

__all__ = ["ReceptiveFieldPicture"]


class ReceptiveFieldPicture:
    """Draw, for each image, what the output at a pixel looks at, its effective receptive field: ``<name>_erf.png``.

    See :mod:`.receptive_field` for how it is computed. The picture's axes and radii are in pixels of the
    image as the network gets it. Attach it to a MONAI evaluator whose images are ``MetaTensor`` under the key "image".

    Args:
        network: the evaluator's network, with same padding; may be wrapped for distributed evaluation.
        pixel: (x, y) or (x, y, z) in the image's file, counted from 0, in the order that MONAI's readers give the
            axes: x columns from the left and y rows from the top of a picture. The position after the
            preprocessing follows from the image's affine.
        output_dir: folder to write to, created if need be.
        channel: channel of the output.
        max_size_px: a larger image is cut to a window of this size around the pixel, which bounds the memory.
        divisor: product of the network's strides; sizes are padded to multiples of it.

    Raises:
        ValueError: when the window is smaller than the network takes; during a run, when ``channel`` lies outside the
            network's output; after it, when no image has the pixel. An image without it is named on stderr.

    Source:
        Pinckaers and Litjens 2019, figure 2: the receptive field as a bar on the image.

    Example:
        >>> import torch
        >>> picture = ReceptiveFieldPicture(nn.Conv2d(3, 2, 3, padding=1), pixel=(120, 80), output_dir="eval")
        >>> image = MetaTensor(torch.rand(3, 200, 100), affine=torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0])))
        >>> picture.index(image)  # the preprocessing has halved it
        (60, 40)
    """

    def __init__(
        self,
        network: nn.Module,
        pixel: Sequence[int],
        output_dir: str | os.PathLike,
        channel: int = 0,
        max_size_px: int = 512,
        divisor: int = 16,
    ) -> None:
        if max_size_px < 2 * divisor:
            raise ValueError(f"max_size_px is {max_size_px}; expected at least {2 * divisor}, twice the divisor")
        self.network: nn.Module = getattr(network, "module", network)
        self.pixel = tuple(pixel)
        self.output_dir = str(output_dir)
        self.channel = channel
        self.max_size_px = max_size_px
        self.divisor = divisor
        self._num_pictures = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self._require_pictures)

    def _require_pictures(self) -> None:
        if idist.all_reduce(self._num_pictures) == 0:  # of all processes that share the images
            raise ValueError(
                f"no receptive field was drawn: no image has the pixel {self.pixel}; all other outputs were written"
            )

    def __call__(self, engine: Evaluator) -> None:
        for image in images_in_batch(engine):
            try:
                self.index(image)
            except ValueError as error:  # other images may hold the pixel
                print(f"no receptive field: {error}", file=sys.stderr, flush=True)
                continue
            name = create_file_basename("erf", image.meta["filename_or_obj"], self.output_dir, separate_folder=False)
            on_device: Any = image.to(engine.state.device)  # still a MetaTensor
            write_atomically(Path(name + ".png"), partial(self.figure(on_device).savefig, dpi=120))
            self._num_pictures += 1

    def index(self, image: MetaTensor) -> tuple[int, ...]:
        """Where the pixel is in ``image``, (C, *spatial), after the preprocessing.

        Raises:
            ValueError: when it has another number of axes, or lies outside the file or what the preprocessing left.
        """
        name, axes = image_file_name(image), image.dim() - 1
        check_pixel(self.pixel, image.meta.get("spatial_shape", image.shape[1:])[:axes], f"{name}: pixel")
        affine = convert_to_numpy(image.affine)
        before = convert_to_numpy(image.meta.get("original_affine", np.eye(len(affine))))  # a picture's is the identity
        at = np.zeros(len(affine))
        at[:axes], at[-1] = self.pixel, 1
        found = tuple(round(place) for place in (np.linalg.inv(affine) @ before @ at)[:axes])
        check_pixel(found, image.shape[1:], f"{name}: pixel, after the preprocessing,")
        return found

    def figure(self, image: MetaTensor) -> Figure:
        """The picture of one image, (C, *spatial), as the network gets it."""
        whole, start = self.index(image), []
        for place, size in zip(whole, image.shape[1:], strict=True):
            last = max(size - self.max_size_px, 0)
            first = min(max(place - self.max_size_px // 2, 0), last + self.divisor - 1)
            start.append(first // self.divisor * self.divisor)  # on the pooling grid
        window = image.as_tensor()[(slice(None), *(slice(first, first + self.max_size_px) for first in start))]
        pixel = tuple(place - first for place, first in zip(whole, start, strict=True))
        field = effective_receptive_field(self.network, window[None], pixel, self.channel, self.divisor)
        title = f"{image_file_name(image)}: output {self.channel} at {self.pixel}"
        return draw_receptive_field(window, field, pixel, start, title)
