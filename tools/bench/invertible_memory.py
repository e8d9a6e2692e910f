"""Measure the peak memory of a training step for every network, engine and depth, in bytes and as ratios.

    OMP_NUM_THREADS=2 python -m tools.bench.invertible_memory

Live bytes are the tensors that a step allocates: activations, their gradients and the gradients of the parameters
(cross entropy + Dice, fp32, batch of 1), without the parameters. Cubes of up to --real voxels a side are run with real
tensors, larger ones with tensors without data. On a CPU the latter are run only if both methods differ by less than 0.1
% in the rows with real tensors of at most depth 4. On a GPU torch.cuda.max_memory_allocated is measured as well, less
the memory allocated before the step.

The depth is the number of couplings, or for UNet3D of double convolutions, per level and side. Ratios are to UNet3D at
depth 1 without VAE; the invertible networks include the VAE. At depth 4 they have as many parameters as UNet3D at
depth 1. The paper's ratios are printed for comparison.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable

import torch
from monai.losses import DiceCELoss
from torch import nn

from invres3d.losses import RegularizedLoss
from invres3d.plan import Training, list_trainings, predict
from invres3d.plan.live_memory import LiveMemory
from studies.markdown import markdown_table

# Yamazaki, Rathour, Le 2021, tables 2 and 3: GB of iSeg (patches of 64^3) and BraTS (128^3)
PAPER = {
    64: {"UNet3D": 4.18, "PartiallyInvertibleUNet": 3.60, "FullyInvertibleUNet": 2.12},
    128: {"UNet3D": 6.8, "PartiallyInvertibleUNet": 5.7, "FullyInvertibleUNet": 3.1},
}
CHECKED_DEPTH = 4


def make_step(training: Training, device: torch.device) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    """A network in training mode, and a call that makes a step on a batch without updating; it gives the loss."""
    with device:
        network = training.make_network().train()
        image = torch.randn(training.batch_size, training.in_channels, *training.patch)
        label = torch.randint(0, training.out_channels, (training.batch_size, 1, *training.patch)).float()
    loss = RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True))

    def step() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=training.amp):
            output = network(image)
            total = loss(output, label)
        del output
        total.backward()
        return total.detach()

    return network, step


def measure(training: Training, device: torch.device) -> tuple[int, int | None]:
    """(live bytes, bytes allocated on a GPU) of a step on real tensors."""
    network, step = make_step(training, device)
    gc.collect()
    with LiveMemory() as memory:
        step()
    if device.type != "cuda":
        return memory.peak_bytes, None
    network.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return memory.peak_bytes, torch.cuda.max_memory_allocated(device) - before


def paper(training: Training) -> str:
    side = training.patch[0]
    if side not in PAPER or training.engine not in ("none" if training.network == "UNet3D" else "memcnn",):
        return "-"
    figures = PAPER[side]
    return f"{figures[training.network]} GB ({figures[training.network] / figures['UNet3D']:.2f})"


def differing(training: Training, live: int) -> str | None:
    """What to say when the prediction is not the measured figure."""
    predicted = predict(training).live_bytes
    if abs(predicted - live) <= 0.001 * live:
        return None
    return f"{training.network}, {training.engine}, {training.depth}: {predicted} predicted, {live} measured"


def report(side: int, args: argparse.Namespace) -> list[str]:
    """Print the table of one patch. Gives the rows where prediction and measurement differ."""
    device = torch.device(args.device)
    real = side <= args.real
    where = f"real tensors on {args.device}" if real else "tensors without content"
    print(f"\n{side} x {side} x {side} voxels, {where}, torch {torch.__version__}\n")
    gpu_head = ["allocated on the GPU, MiB (ratio)"] if device.type == "cuda" and real else []
    columns = ["network", "engine", "depth", "live, MiB", "ratio", *gpu_head, "the paper's (ratio)"]
    print(markdown_table(columns, []))
    trainings = list_trainings(
        args.depths, [False], vae=True, num_blocks=args.depths, patch=(side,) * 3, channels=tuple(args.channels)
    )
    base: tuple[int, int | None] | None = None
    wrong = []
    for i, training in enumerate(trainings, start=1):
        print(f"{i} of {len(trainings)}", end="\r", file=sys.stderr, flush=True)
        live, allocated = measure(training, device) if real else (predict(training).live_bytes, None)
        base = base or (live, allocated)
        # on a GPU other operations are chosen than on tensors without content
        if real and device.type == "cpu" and training.depth <= CHECKED_DEPTH:
            wrong += filter(None, [differing(training, live)])
        cells = [training.network, training.engine, str(training.depth)]
        cells += [f"{live / 2**20:.1f}", f"{live / base[0]:.3f}"]
        if gpu_head and allocated is not None and base[1]:
            cells.append(f"{allocated / 2**20:.1f} ({allocated / base[1]:.3f})")
        print(f"| {' | '.join([*cells, paper(training)])} |", flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128], help="of the cubes, in voxels")
    parser.add_argument("--real", type=int, default=64, help="largest side on real tensors")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8], help="per level and side")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128, 256], help="of each level")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for side in sorted(args.sides):
        wrong = report(side, args)
        if wrong:
            raise SystemExit("prediction and measurement differ, so larger patches are left out:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
