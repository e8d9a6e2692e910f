"""What a training is made of, as plain values that can be stored and compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.utils import ensure_tuple
from torch import nn

from ..errors import InputError
from ..processes import rank_and_world_size
from .cpu_autocast import CpuAutocast
from .descriptions import describe
from .engine_parts import describe_handlers, describe_metrics

__all__ = ["describe_training", "find_differences", "require_same"]

_MISSING = "nothing"
_MAX_CHARACTERS = 60
_MAX_SHOWN = 8
_END_BYTES = 2**20


def _describe_file(path: str | os.PathLike) -> Any:
    """Name, size in bytes, and a checksum of the first and the last MiB: the same where a data folder is moved."""
    try:
        if os.path.isdir(path):
            return f"{Path(path).name}, {len(os.listdir(path))} files"
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(file.read(_END_BYTES))
            file.seek(max(_END_BYTES, size - _END_BYTES))
            digest.update(file.read())
        return f"{Path(path).name}, {size} bytes, {digest.hexdigest()[:12]}"
    except (OSError, ValueError):
        return str(path)


def _describe_entry(entry: Any) -> Any:
    if not isinstance(entry, Mapping):
        return describe(entry)
    described = {}
    for key, value in entry.items():
        parts = [_describe_file(part) if isinstance(part, str | os.PathLike) else part for part in ensure_tuple(value)]
        is_one = isinstance(value, str | os.PathLike | torch.Tensor | np.ndarray)
        described[str(key)] = describe(parts[0] if is_one and len(parts) == 1 else parts)
    return described


def _describe_data(loader: Any) -> Iterator[tuple[str, Any]]:
    dataset = getattr(loader, "dataset", None)
    yield "dataset::data", [_describe_entry(entry) for entry in getattr(dataset, "data", None) or ()]
    yield "preprocessing", describe(getattr(dataset, "transform", None))
    yield "dataloader::batch_size", getattr(loader, "batch_size", None)
    yield "dataloader::sampler", describe(getattr(loader, "sampler", None))


def describe_training(
    trainer: SupervisedTrainer,
    evaluator: SupervisedEvaluator | None,
    network: nn.Module,
    objects: Mapping[str, Any],
    sign: int,
) -> dict[str, Any]:
    """The parts of a training that has not begun, by their ids in ``train.json``.

    Args:
        trainer: it has the loss, the training images and how they are changed and put into batches.
        evaluator: it has the validation, which decides on the best weights.
        network: what is trained.
        objects: optimiser and schedule.
        sign: -1 where a smaller key metric is better, otherwise 1.
    """
    parts = {"network_def": describe(network), "loss": describe(trainer.loss_function)}
    parts |= {name: describe(value) for name, value in objects.items() if name != "scaler"}
    parts |= {f"train::{name}": value for name, value in _describe_data(trainer.data_loader)}
    parts["train::inferer"] = describe(trainer.inferer)
    parts["train::handlers"] = describe_handlers(trainer)
    parts["train::trainer::amp"] = trainer.amp or any(
        isinstance(part, CpuAutocast) for part in trainer.network.modules()
    )
    parts["number of processes"] = rank_and_world_size()[1]
    if evaluator is not None:
        parts |= {f"validate::{name}": value for name, value in _describe_data(evaluator.data_loader)}
        parts["validate::inferer"] = describe(evaluator.inferer)
        parts["validate::postprocessing"] = describe(getattr(evaluator, "postprocessing", None))
        parts["validate::key_metric"] = evaluator.state.key_metric_name  # type: ignore[attr-defined]
        parts["key_metric_negative_sign"] = sign < 0
        parts["validate::metrics"] = describe_metrics(evaluator)
    return parts


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Mapping) and not (isinstance(value, list) and not all(map(_is_plain, value)))


def _pairs(was: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if was == now:
        return
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        if was.get("class") != now.get("class"):
            yield path, was.get("class"), now.get("class")
            return
        for key in dict.fromkeys([*was, *now]):
            yield from _pairs(was.get(key, _MISSING), now.get(key, _MISSING), f"{path}::{key}" if path else key)
    elif isinstance(was, list) and isinstance(now, list) and not (_is_plain(was) and _is_plain(now)):
        if len(was) != len(now):
            yield path, f"{len(was)} entries", f"{len(now)} entries"
            return
        for i, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _pairs(one, other, f"{path}::{i}")
    else:
        yield path, was, now


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("class", "others"))
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 3]}..."


def find_differences(was: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[str]:
    """What differs, with both values; a difference that repeats an earlier one in another place is left out.

    Args:
        was: options and parts of one training, the most telling first.
        now: those of the other.

    Example:
        >>> find_differences([{"size": 3}, {"filter": {"class": "Mean", "size": 3, "mode": "same"}}],
        ...                  [{"size": 5}, {"filter": {"class": "Mean", "size": 5, "mode": "valid"}}])
        ['size was 3 and is 5', 'filter::mode was same and is valid']
    """
    found: dict[tuple[str, str], str] = {}
    for one, other in zip(was, now, strict=True):
        for path, before, after in _pairs(one, other, ""):
            values = str(before).strip("[]"), str(after).strip("[]")
            found.setdefault(values, f"{path} was {_show(before)} and is {_show(after)}")
    return list(found.values())


def require_same(state: Mapping[str, Any], recipe: list[dict[str, Any]], max_epochs: int, state_path: Path) -> None:
    """Make sure that a stopped training can be resumed as the one at hand.

    Another number of epochs is possible where the learning rate's schedule does not depend on it.

    Args:
        state: what the stopped training has saved.
        recipe: options and parts of the training at hand.
        max_epochs: its number of epochs.
        state_path: file of the state.

    Raises:
        InputError: where something differs.
    """
    was, schedules = state["max_epochs"], [parts.get("lr_scheduler") for _, parts in (state["recipe"], recipe)]
    depends = was != max_epochs and schedules[0] != schedules[1]
    epochs = [[{"max_epochs": number if depends else None}] for number in (was, max_epochs)]
    differences = find_differences(epochs[0] + state["recipe"], epochs[1] + recipe)
    remedy = "pass the same as before, or another --output_dir, or --overwrite true without --resume to start again"
    if depends:
        remedy = (
            f"pass --max_epochs {was}; the learning rate follows a schedule over all epochs, so with "
            f"{max_epochs} of them it is another training, which needs another --output_dir or --overwrite true "
            "without --resume"
        )
    if differences:
        more = f" and {len(differences) - _MAX_SHOWN} more" if len(differences) > _MAX_SHOWN else ""
        found = f"is of another training: {'; '.join(differences[:_MAX_SHOWN])}{more}"
        raise InputError(state_path, found, "the same options, configs and data", remedy)
