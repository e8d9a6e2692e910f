"""Command line of the plan: ``python -m invres3d.plan --patch 128 128 128 --in_channels 4 --memory 8GiB``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from . import (
    NETWORKS,
    OPTIMIZERS,
    Prediction,
    format_bytes,
    format_table,
    largest_cube,
    list_trainings,
    parse_bytes,
    predict,
)

__all__ = ["main"]


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "both"],
        default="fp32",
        help="bf16: autocast; predicting takes longer (default: %(default)s)",
    )
    parser.add_argument("--no_vae", action="store_true", help="without the VAE branch of the invertible networks")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="default: %(default)s")
    parser.add_argument(
        "--largest",
        action="store_true",
        help="also find the largest cube for each network, with the row that needs least memory",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m invres3d.plan",
        description="Predict the memory of a training step (cross entropy + Dice) of every network and engine, and say "
        "which fit. live: peak of activations and gradients. total: needed on the GPU, with the parameters, the "
        "optimiser's state and the batch. Not counted: CUDA's context, workspaces of convolutions and fragments; see "
        "--reserve.",
    )
    integers: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--patch", nargs=3, required=True, help="voxels along each axis", **integers)
    parser.add_argument("--memory", required=True, help="memory of the GPU, such as 8GiB")
    parser.add_argument("--reserve", default="1GiB", help="memory to leave free, 1B for none (default: %(default)s)")
    parser.add_argument("--batch_size", default=1, help="patches in a step (default: %(default)s)", **integers)
    parser.add_argument("--in_channels", default=4, help="channels of the image (default: %(default)s)", **integers)
    parser.add_argument("--out_channels", default=4, help="classes with background (default: %(default)s)", **integers)
    parser.add_argument(
        "--channels", nargs="+", default=[32, 64, 128, 256], help="of each level (default: 32 64 128 256)", **integers
    )
    parser.add_argument(
        "--num_couplings", nargs="+", default=[4], help="per level and side, one or more (default: 4)",
        **integers,
    )  # fmt: skip
    _add_training_options(parser)
    return parser


def _print_largest(predictions: Sequence[Prediction], memory_bytes: int) -> None:
    print("\nlargest cube that fits, multiples of 16:")
    for network in NETWORKS:
        leanest = min((p for p in predictions if p.training.network == network), key=lambda p: p.total_bytes)
        found = largest_cube(leanest, memory_bytes)
        training = leanest.training
        setting = f"{network}, {training.engine}, {'bf16' if training.amp else 'fp32'}"
        size = "none" if found is None else f"{found.training.patch[0]}, total {format_bytes(found.total_bytes)}"
        print(f"  {setting}: {size}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the command line asks for; exit with code 2 and one line where it cannot be done.

    Args:
        arguments: the command line's words, ``sys.argv[1:]`` if None.

    Example:
        >>> main("--patch 16 16 16 --memory 2GiB --channels 8 16 --num_couplings 1 --precision fp32".split())
        ... # doctest: +ELLIPSIS
        16 x 16 x 16 voxels, batch of 1, 4 to 4 channels, adam; 1024 MiB (2048 MiB less 1024 MiB to leave free)
        <BLANKLINE>
        fits  network                  engine      depth  precision ...
        yes   ...
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    amps = {"fp32": [False], "bf16": [True], "both": [False, True]}[options.precision]
    settings = {name: getattr(options, name) for name in ("batch_size", "in_channels", "out_channels", "optimizer")}
    settings |= {"patch": tuple(options.patch), "channels": tuple(options.channels)}
    predictions = []
    try:
        memory, reserve = parse_bytes(options.memory), parse_bytes(options.reserve, "reserve")
        if memory <= reserve:
            raise ValueError(
                f"memory is {options.memory} and reserve {options.reserve}; expected memory above reserve: reduce "
                "--reserve"
            )
        trainings = list_trainings(options.num_couplings, amps, not options.no_vae, **settings)
        for i, training in enumerate(trainings, start=1):
            predictions.append(predict(training))
            print(f"{i} of {len(trainings)}", end="\r", file=sys.stderr, flush=True)
    except ValueError as error:
        parser.error(str(error))
    print(
        f"{' x '.join(map(str, options.patch))} voxels, batch of {options.batch_size}, {options.in_channels} to "
        f"{options.out_channels} channels, {options.optimizer}; {format_bytes(memory - reserve)} "
        f"({format_bytes(memory)} less {format_bytes(reserve)} kept free)\n"
    )
    print(format_table(predictions, memory - reserve))
    if options.largest:
        _print_largest(predictions, memory - reserve)


if __name__ == "__main__":
    main()
