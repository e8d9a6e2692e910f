"""Search the parameters of the closing of cells on validation slices.

    python -m studies.membranes --dataset_dir DATA --ckpt_path RUN/model.pt --tta true

Predicts the slices of one list, closes the cells with every combination of a grid of parameters, and prints the
combinations with the smallest mean of pixel error and Rand error. Do not choose parameters on the slices whose scores
you report. Options such as ``--threshold 0.5`` or ``--depth 0.01 0.02`` change the grid.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImage
from tqdm import tqdm

from bundlekit.metrics import pixel_error, rand_error
from bundlekit.transforms.close_cells import CloseCells

CONFIG = Path(__file__).resolve().parents[1] / "bundles/membrane_em_segmentation/configs/inference.json"
GRID = {
    "threshold": (0.45, 0.5, 0.55),
    "sigma_px": (1.0, 1.5, 2.0, 3.0),
    "depth": (0.005, 0.01, 0.02, 0.05),
    "merge_below": (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8),
}


@torch.no_grad()
def probabilities(parser: ConfigParser, args: argparse.Namespace, items: list[dict]) -> list[np.ndarray]:
    """The membrane probability of each slice, (1, H, W)."""
    network, inferer = parser.get_parsed_content("network").eval(), parser.get_parsed_content("inferer")
    weights = torch.load(args.ckpt_path, map_location=args.device, weights_only=True)
    parser.get_parsed_content("network_def").load_state_dict(weights)
    preprocess = parser.get_parsed_content("preprocessing")
    images = (preprocess({"image": item["image"]})["image"][None].to(args.device) for item in items)
    return [
        torch.softmax(inferer(image, network).float(), 1)[0, 1:].cpu().numpy()
        for image in tqdm(images, total=len(items))
    ]


def choose(grid: dict[str, list[float]], maps: list[np.ndarray], truths: list[np.ndarray]) -> list[tuple[float, ...]]:
    """Mean error, pixel error, Rand error and parameters of each combination, the best first."""
    rows = []
    for values in tqdm(list(product(*grid.values())), desc="closing"):
        close = CloseCells(**dict(zip(grid, values, strict=True)))
        pairs = [(close(p)[0], truth) for p, truth in zip(maps, truths, strict=True)]
        pixel, rand = (float(np.mean([measure(*pair) for pair in pairs])) for measure in (pixel_error, rand_error))
        rows.append(((pixel + rand) / 2, pixel, rand, *values))
    return sorted(rows)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--section", default="validation")
    parser.add_argument("--overlay", nargs="*", default=[], help="net_*.json that the weights belong to")
    parser.add_argument("--tta", default="false")
    parser.add_argument("--amp", default="false")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--best", type=int, default=10, help="combinations to print")
    for name, values in GRID.items():
        shown = " ".join(map(str, values))
        parser.add_argument(
            f"--{name}", type=float, nargs="+", default=values, help=f"values to try (default: {shown})"
        )
    return parser.parse_args()


def main() -> None:
    args = read_options()
    parser = ConfigParser(ConfigParser.load_config_files([str(CONFIG), *args.overlay]))
    options = {"device": args.device, "amp": args.amp, "tta": args.tta, "ckpt_path": args.ckpt_path}
    parser.update({**options, "checks::output_dir": None})
    checks = parser.get_parsed_content("checks")
    items = checks.section(args.dataset_dir, args.section)
    checks.start(items, network=parser.get_parsed_content("network_def"))
    truths = [np.asarray(LoadImage()(item["label"])).astype(np.uint8) for item in items]
    rows = choose({name: getattr(args, name) for name in GRID}, probabilities(parser, args, items), truths)
    print("".join(f"{name:>13}" for name in ("mean", "pixel error", "Rand error", *GRID)))
    for row in rows[: args.best]:
        print("".join(f"{value:13.4f}" for value in row))
    checks.finish()


if __name__ == "__main__":
    main()
