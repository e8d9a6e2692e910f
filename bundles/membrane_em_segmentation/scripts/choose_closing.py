"""Choose threshold, sigma and depth of the closing of cells on validation slices.

    python scripts/choose_closing.py --dataset_dir DATA --ckpt_path RUN/model.pt --tta true

Predicts the slices of one section, closes the cells with every combination of a grid, and prints the combinations with
the smallest mean of pixel error and Rand error. Never choose on the slices that you report.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from tqdm import tqdm

from unet_ode.metrics import pixel_error, rand_error
from unet_ode.postprocessing import CloseCells

CONFIG = Path(__file__).resolve().parent.parent / "configs/inference.json"
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
SIGMAS = (0.0, 1.0, 2.0, 3.0)
DEPTHS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


@torch.no_grad()
def probabilities(args: argparse.Namespace, items: list[dict]) -> list[np.ndarray]:
    """The membrane probability of each slice, (1, H, W)."""
    parser = ConfigParser(ConfigParser.load_config_files([str(CONFIG), *args.overlay]))
    parser.update({"device": args.device, "amp": args.amp, "tta": args.tta})
    network, inferer = parser.get_parsed_content("network").eval(), parser.get_parsed_content("inferer")
    parser.get_parsed_content("network_def").load_state_dict(torch.load(args.ckpt_path, weights_only=True))
    preprocess = parser.get_parsed_content("preprocessing")
    images = (preprocess({"image": item["image"]})["image"][None].to(args.device) for item in items)
    return [
        torch.softmax(inferer(image, network).float(), 1)[0, 1:].cpu().numpy()
        for image in tqdm(images, total=len(items))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--section", default="validation")
    parser.add_argument("--overlay", nargs="*", default=[], help="net_*.json that the weights belong to")
    parser.add_argument("--tta", default="false")
    parser.add_argument("--amp", default="false")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--best", type=int, default=10, help="combinations to print")
    args = parser.parse_args()
    items = load_decathlon_datalist(args.dataset_dir / "dataset.json", data_list_key=args.section)
    truths = [np.asarray(LoadImage()(item["label"])).astype(np.uint8) for item in items]
    maps = probabilities(args, items)
    rows = []
    grid = list(product(THRESHOLDS, SIGMAS, DEPTHS))
    for threshold, sigma, depth in tqdm(grid, desc="closing"):
        close = CloseCells(threshold, sigma, depth)
        pairs = [(close(p)[0], truth) for p, truth in zip(maps, truths, strict=True)]
        errors = [np.mean([measure(*pair) for pair in pairs]) for measure in (pixel_error, rand_error)]
        rows.append((float(np.mean(errors)), *errors, threshold, sigma, depth))
    print("  mean  pixel   Rand  threshold  sigma_px  depth")
    for mean, pixel, rand, threshold, sigma, depth in sorted(rows)[: args.best]:
        print(f"{mean:.4f} {pixel:.4f} {rand:.4f}  {threshold:9.2f}  {sigma:8.1f}  {depth:5.2f}")


if __name__ == "__main__":
    main()
