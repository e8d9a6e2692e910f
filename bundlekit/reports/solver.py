"""Reports the number of evaluations that each block of U-Node takes for each image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import fmean
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.utils import string_list_all_gather
from torch import nn
from torch.utils.hooks import RemovableHandle

from ..files import write_atomically
from .batches import image_file_name, images_in_batch
from .tables import align_columns

__all__ = ["SolverReport"]


class SolverReport:
    """Count the function evaluations (NFE) of every ODE block, image by image, into ``nfe.json`` and a printed table.

    All of an image's passes count: tiles, and the views of an average over symmetries; a sample is one of them. The
    file is ``{"images": [{"image": file name, "num_samples": {block: n}, "nfe": {block: mean over the samples},
    "nfe_min": {...}, "nfe_max": {...}, "total": sum of "nfe"}, ...], "mean": {block: mean over the images, ...,
    "total": ...}}``. It appears, complete, at the end of the run. Attach it to a MONAI evaluator of batches of one
    image, ``MetaTensor`` under the key "image".

    Args:
        network: the evaluator's network; may be wrapped for distributed evaluation. Its ODE blocks are the modules with
            a ``name`` and ``last_stats()``, as ``unet_ode.ode.ODEBlock`` has them.
        output_dir: folder to write to, created if need be.

    Raises:
        ValueError: when the network has no ODE block, or two of one name; during a run, when a batch holds several
            images.
        RuntimeError: during a run, when a block was not used for an image.

    Source:
        Pinckaers and Litjens 2019, "Neural Ordinary Differential Equations for Semantic Segmentation of Individual
        Colon Glands", figure 2: the NFE of each image.

    Example:
        >>> SolverReport(nn.Conv2d(1, 1, 3), "eval")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: SolverReport got a Conv2d without ODE blocks; expected a network such as UNode: ...
    """

    def __init__(self, network: nn.Module, output_dir: str | os.PathLike) -> None:
        self.blocks: list[Any] = [
            module for module in network.modules() if hasattr(module, "last_stats") and hasattr(module, "name")
        ]
        names = [block.name for block in self.blocks]
        if not names:
            raise ValueError(
                f"SolverReport got a {type(network).__name__} without ODE blocks; expected a network such as UNode: "
                "disable the report for other networks"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"the ODE blocks are called {', '.join(names)}; expected unique names: rename them")
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
        self._remove_hooks()  # left by a run that was interrupted
        self._hooks = [block.register_forward_hook(self._count) for block in self.blocks]

    def _count(self, block: Any, inputs: Any, output: Any) -> None:
        self._counts[block.name].append(block.last_stats().nfe)

    def _begin_image(self, engine: Engine) -> None:
        self._counts = {block.name: [] for block in self.blocks}

    def _end_image(self, engine: Engine) -> None:
        images = images_in_batch(engine)
        if len(images) != 1:
            raise ValueError(
                f"the batch holds {len(images)} images; expected 1, because the passes of several cannot be "
                "distinguished: set the dataloader's batch_size to 1"
            )
        name = image_file_name(images[0])
        if unused := [block for block, counts in self._counts.items() if not counts]:
            raise RuntimeError(
                f"{name}: no pass through the ODE blocks {', '.join(unused)}; expected the evaluator to run the "
                "report's network: pass the same network to both, not compiled"
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
        if idist.get_rank() > 0 or not rows:
            return
        mean = {block.name: fmean(row["nfe"][block.name] for row in rows) for block in self.blocks}
        mean["total"] = fmean(row["total"] for row in rows)
        text = json.dumps({"images": rows, "mean": mean}, indent=1) + "\n"
        write_atomically(self.path, lambda part: part.write_text(text, encoding="utf-8"))
        print(self._table(rows, mean))

    def _table(self, rows: list[dict[str, Any]], mean: dict[str, float]) -> str:
        """A row for each image, and the mean."""
        lines = [(row["image"], [*row["nfe"].values(), row["total"]]) for row in rows] + [("mean", [*mean.values()])]
        cells = [["NFE", *mean], *([name, *(f"{value:.1f}" for value in values)] for name, values in lines)]
        return align_columns(cells)
