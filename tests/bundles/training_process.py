"""A process of a training, started by test_distributed.py: python training_process.py SETTINGS.json [under torchrun].

SETTINGS has "configs" and "options" of a bundle's workflow; "stop_at_epoch", at which it ends as a crash would;
"gradients", a file for those of the first iteration, after which it ends; "writes", a folder for a list of what this
process wrote.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bundlekit.training import own_weights, state


class EnoughError(Exception):
    """The process has done what it was for."""


def separate_images(network: torch.nn.Module) -> None:
    """Turn off what mixes the images of a batch or draws numbers, so that gradients are means over images."""
    for module in network.modules():
        if isinstance(module, _BatchNorm | _DropoutNd):
            module.eval()
            module.train = lambda mode=True, module=module: module
    torch.randn_like = torch.zeros_like


def main(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    write = state.write_atomically

    def noted_write(path, writer):
        with open(Path(settings["writes"]) / f"{rank}.txt", "a") as file:
            file.write(f"{Path(path).name}\n")
        write(path, writer)

    if "writes" in settings:
        state.write_atomically = own_weights.write_atomically = noted_write
    workflow = ConfigWorkflow(config_file=settings["configs"], logging_file=False, **settings["options"])
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train::trainer")
    network = getattr(trainer.network, "module", trainer.network)

    def stop():
        raise EnoughError

    def save_gradients():
        if rank == 0:
            found = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
            torch.save(found, settings["gradients"])
        raise EnoughError

    if "stop_at_epoch" in settings:
        trainer.add_event_handler(Events.EPOCH_STARTED(once=settings["stop_at_epoch"]), stop)
    if "gradients" in settings:
        separate_images(network)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, save_gradients)
    try:
        trainer.run() if "gradients" in settings else workflow.run()
    except Exception as error:  # MONAI wraps what its config raises
        if not isinstance(error.__cause__, EnoughError) and not isinstance(error, EnoughError):
            raise
    workflow.finalize()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
