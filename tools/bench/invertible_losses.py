"""Compare the losses of a training on one fixed batch between the engines, from the same weights.

    OMP_NUM_THREADS=2 python -m tools.bench.invertible_losses --output runs/invertible_losses

Adam, cross entropy + Dice and the VAE's losses. The engines compute the same function and differ only in rounding,
which training amplifies with every step. Prints the largest difference to engine "none", and writes OUTPUT.csv (a row
per step, a column per engine) and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from monai.losses import DiceCELoss

from bundlekit.reports.tables import write_csv
from invres3d.losses import RegularizedLoss
from invres3d.plan import NETWORKS, Training
from studies.markdown import markdown_table

BASE = "none"
STYLES = ("-", "--", "-.", ":")  # the curves lie upon each other


def batch(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright balls in noise: label 1 within the larger radius, 2 within the smaller one."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, args.patch)] * 3, indexing="ij")
    radius = sum((axis.square() for axis in axes), start=torch.zeros(())).sqrt()
    label = ((radius < 0.8).float() + (radius < 0.4).float())[None, None]
    image = label + 0.5 * torch.randn(1, 2, *label.shape[2:], generator=torch.Generator().manual_seed(0))
    return image.to(args.device), label.to(args.device)


def train(training: Training, args: argparse.Namespace) -> list[float]:
    torch.manual_seed(0)  # the same weights and the VAE's noise
    network = training.make_network().to(args.device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    loss = RegularizedLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    image, label = batch(args)
    values = []
    for step in range(args.steps):
        optimizer.zero_grad()
        total = loss(network(image), label)
        total.backward()
        optimizer.step()
        values.append(total.item())
        print(f"{training.engine}: step {step + 1} of {args.steps}", end="\r", file=sys.stderr, flush=True)
    return values


def write(curves: dict[str, list[float]], output: Path, title: str) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    steps = enumerate(zip(*curves.values(), strict=True))
    rows = [{"step": step, **dict(zip(curves, values, strict=True))} for step, values in steps]
    write_csv(f"{output}.csv", rows)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (style, (engine, values)) in enumerate(zip(STYLES, curves.items(), strict=True)):
        look = {"linestyle": style, "color": f"C{number}", "label": engine}  # the same on both sides
        left.plot(values, **look)
        if engine != BASE:
            right.plot([abs(a - b) for a, b in zip(values, curves[BASE], strict=True)], **look)
    left.set(xlabel="step", title="loss")
    right.set(xlabel="step", title=f'difference to "{BASE}"')
    right.set_yscale("symlog", linthresh=1e-7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(f"{output}.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    invertible = [name for name in NETWORKS if name != "UNet3D"]
    parser.add_argument("--network", choices=invertible, default="FullyInvertibleUNet")
    parser.add_argument("--patch", type=int, default=32, help="side of the cube in voxels")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=2e-4, help="the paper's")
    parser.add_argument("--num_couplings", type=int, default=4, help="per level and side")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128], help="of each level")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, required=True, help="path of the CSV and the PNG, without ending")
    args = parser.parse_args()
    curves = {}
    for engine in NETWORKS[args.network]:
        training = Training(
            args.network, engine, args.num_couplings, patch=(args.patch,) * 3, in_channels=2, out_channels=3,
            channels=tuple(args.channels), vae=True,
        )  # fmt: skip
        curves[engine] = train(training, args)
    title = f"{args.network}, {args.num_couplings} couplings, {args.patch}^3 voxels, Adam {args.learning_rate:g}, fp32"
    print(f"{title}, {args.steps} steps, {args.device}, torch {torch.__version__}\n")
    print(markdown_table(["engine", "loss, first", "loss, last", 'largest difference to "none"', "at step"], []))
    for engine, values in curves.items():
        differences = [abs(a - b) for a, b in zip(values, curves[BASE], strict=True)]
        largest = max(differences)
        figures = f"{values[0]:.5f} | {values[-1]:.5f} | {largest:.1e} | {differences.index(largest)}"
        print(f"| {engine} | {figures} |")
    write(curves, args.output, title)
    print(f"\n{args.output}.csv, {args.output}.png")


if __name__ == "__main__":
    main()
