"""What an evaluator can tell about U-Node on the way: evaluations of each block, and what an output pixel looks at."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.data import MetaTensor, create_file_basename, decollate_batch
from monai.engines import Evaluator, IterationEvents
from monai.utils import convert_to_numpy, string_list_all_gather
from torch import nn
from torch.utils.hooks import RemovableHandle

from .ode import ODEBlock
from .receptive_field import check_pixel, draw_receptive_field, effective_receptive_field

__all__ = ["ReceptiveFieldPicture", "SolverReport"]


def _write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file on the same disk and move it to ``path`` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        part = Path(folder, path.name)
        write(part)
        os.replace(part, path)


def _images(engine: Engine) -> list[MetaTensor]:
    batch: Any = engine.state.batch
    return [item["image"] for item in (decollate_batch(batch) if isinstance(batch, Mapping) else batch)]


def _file_name(image: MetaTensor) -> str:
    return Path(image.meta.get("filename_or_obj", "image")).name


class SolverReport:
    """Count the function evaluations (NFE) of every ODE block, image by image, into ``nfe.json`` and a printed table.

    All of an image's passes count: tiles, and the views of an average over symmetries; a sample is one of them. The
    file is ``{"images": [{"image": file name, "num_samples": {block: n}, "nfe": {block: mean over the samples},
    "nfe_min": {...}, "nfe_max": {...}, "total": sum of "nfe"}, ...], "mean": {block: mean over the images, ...,
    "total": ...}}``. It appears, complete, at the end of the run. Attach it to a MONAI evaluator of batches of one
    image, ``MetaTensor`` under the key "image".

    Args:
        network: the evaluator's network; may be wrapped for distributed evaluation.
        output_dir: folder to write to, created if need be.

    Raises:
        ValueError: when the network has no ODE block, or two of one name; during a run, when a batch holds several
            images.
        RuntimeError: during a run, when a block was not used for an image.

    Source:
        Pinckaers and Litjens 2019, "Neural Ordinary Differential Equations for Semantic Segmentation of Individual
        Colon Glands", figure 2: the NFE of each image.

    Example:
        >>> from unet_ode.nets import UNode
        >>> SolverReport(UNode(2, 3, 2, channels=(4, 8)), "eval").path.as_posix()
        'eval/nfe.json'
    """

    def __init__(self, network: nn.Module, output_dir: str | os.PathLike) -> None:
        self.blocks = [module for module in network.modules() if isinstance(module, ODEBlock)]
        names = [block.name for block in self.blocks]
        if not names:
            raise ValueError(
                f"SolverReport got a {type(network).__name__} without ODE blocks; expected a network such as UNode: "
                "disable the report for other networks"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"the ODE blocks are called {', '.join(names)}; expected names that differ: rename them")
        self.path = Path(output_dir, "nfe.json")
        self._counts: dict[str, list[torch.Tensor]] = {}
        self._rows: list[dict[str, Any]] = []
        self._hooks: list[RemovableHandle] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin_image)
        # before any other handler can run the network for a purpose of its own
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._end_image)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def _start(self, engine: Engine) -> None:
        self._rows.clear()
        self._begin_image(engine)
        self._remove_hooks()  # those of a run that was interrupted
        self._hooks = [block.register_forward_hook(self._count) for block in self.blocks]

    def _count(self, block: ODEBlock, inputs: Any, output: Any) -> None:
        self._counts[block.name].append(block.last_stats().nfe)

    def _begin_image(self, engine: Engine) -> None:
        self._counts = {block.name: [] for block in self.blocks}

    def _end_image(self, engine: Engine) -> None:
        images = _images(engine)
        if len(images) != 1:
            raise ValueError(
                f"the batch holds {len(images)} images; expected 1, as the passes of several cannot be told apart: set "
                "the dataloader's batch_size to 1"
            )
        name = _file_name(images[0])
        if unused := [block for block, counts in self._counts.items() if not counts]:
            raise RuntimeError(
                f"{name}: no pass through the ODE blocks {', '.join(unused)}; expected the evaluator to run the "
                "report's network: give both the same one, not compiled"
            )
        counts = {block: torch.cat(parts).cpu().double() for block, parts in self._counts.items()}
        means = {block: nfe.mean().item() for block, nfe in counts.items()}
        self._rows.append(
            {
                "image": name,
                "num_samples": {block: len(nfe) for block, nfe in counts.items()},
                "nfe": means,
                "nfe_min": {block: int(nfe.min()) for block, nfe in counts.items()},
                "nfe_max": {block: int(nfe.max()) for block, nfe in counts.items()},
                "total": sum(means.values()),
            }
        )

    def _remove_hooks(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _abort(self, engine: Engine, error: BaseException) -> None:
        self._remove_hooks()
        raise error  # ignite hands an exception to its handlers instead of raising it

    def _finish(self, engine: Engine) -> None:
        self._remove_hooks()
        rows = [json.loads(row) for row in string_list_all_gather([json.dumps(row) for row in self._rows])]
        if idist.get_rank() > 0:
            return
        mean = {block.name: fmean(row["nfe"][block.name] for row in rows) for block in self.blocks}
        mean["total"] = fmean(row["total"] for row in rows)
        text = json.dumps({"images": rows, "mean": mean}, indent=1) + "\n"
        _write_atomically(self.path, lambda part: part.write_text(text, encoding="utf-8"))
        print(self._table(rows, mean))

    def _table(self, rows: list[dict[str, Any]], mean: dict[str, float]) -> str:
        """A row for each image, and the mean."""
        lines = [(row["image"], [*row["nfe"].values(), row["total"]]) for row in rows] + [("mean", [*mean.values()])]
        cells = [["NFE", *mean], *([name, *(f"{value:.1f}" for value in values)] for name, values in lines)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)


class ReceptiveFieldPicture:
    """Draw, for each image, what the output at a pixel looks at, its effective receptive field: ``<name>_erf.png``.

    It is computed and drawn by :mod:`unet_ode.receptive_field`. The picture's axes and radii are in pixels of the
    image as the network gets it. Attach it to a MONAI evaluator whose images are ``MetaTensor`` under the key "image".

    Args:
        network: the evaluator's network, with same padding; may be wrapped for distributed evaluation.
        pixel: (x, y) or (x, y, z) in the image's file, counted from 0, in the order that MONAI's readers give the
            axes: x columns from the left and y rows from the top of a picture. The image's affine tells where the
            preprocessing has moved it.
        output_dir: folder to write to, created if need be.
        channel: channel of the output.
        max_size_px: a larger image is cut to a window of this size around the pixel, which bounds the memory.
        divisor: product of the network's strides; sizes are padded to multiples of it.

    Raises:
        ValueError: when the window is smaller than the network takes; during a run, when ``channel`` lies outside the
            network's output. An image without the pixel is named on stderr and gets no picture.

    Source:
        Pinckaers and Litjens 2019, figure 2: the receptive field as a bar on the image.

    Example:
        >>> from unet_ode.nets import UNode
        >>> picture = ReceptiveFieldPicture(UNode(2, 3, 2, channels=(4, 8)), pixel=(120, 80), output_dir="eval")
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

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Evaluator) -> None:
        for image in _images(engine):
            try:
                self.index(image)
            except ValueError as error:  # other images may hold the pixel
                print(f"no receptive field: {error}", file=sys.stderr, flush=True)
                continue
            name = create_file_basename("erf", image.meta["filename_or_obj"], self.output_dir, separate_folder=False)
            on_device: Any = image.to(engine.state.device)  # still a MetaTensor
            _write_atomically(Path(name + ".png"), partial(self.figure(on_device).savefig, dpi=120))

    def index(self, image: MetaTensor) -> tuple[int, ...]:
        """Where the pixel is in ``image``, (C, *spatial), after the preprocessing.

        Raises:
            ValueError: when it has another number of axes, or lies outside the file or what the preprocessing left.
        """
        name, axes = _file_name(image), image.dim() - 1
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
        title = f"{_file_name(image)}: output {self.channel} at {self.pixel}"
        return draw_receptive_field(window, field, pixel, start, title)
