"""Evaluate the optic disc bundle on photographs that differ from its training photographs, case by case.

    python -m studies.optic_disc_limits --data DATA --output runs/optic_limits [--ckpt_path MODEL] [--cases turned_90]

DATA is a folder as the bundle's prepare_data.py writes it. Its test images are rotated by 90 degrees, cropped around
the disc, and cropped so that no disc is left. They are segmented with `monai.bundle run` and compared with the masks,
which are rotated and cropped in the same way. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bundlekit.inputs.datalists import read_section
from studies.markdown import markdown_table
from tools.commands import run_bundle

BUNDLE = Path(__file__).resolve().parent.parent / "bundles/optic_disc_fundus_segmentation"
POOR_DICE = 0.6
MARGIN_PX = 10
"""Between the disc and the edge of a photograph that is cropped next to it."""


def around(disc: np.ndarray, rows: int, columns: int) -> tuple[slice, slice]:
    """A window of that size, within the photograph, with the disc as near to its middle as can be."""
    sizes = np.minimum((rows, columns), disc.shape)
    middle = np.argwhere(disc).mean(axis=0)
    start = np.clip(np.rint(middle - sizes / 2).astype(int), 0, disc.shape - sizes)
    return slice(start[0], start[0] + sizes[0]), slice(start[1], start[1] + sizes[1])


def cropped(image: np.ndarray, disc: np.ndarray, height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """A window around the disc; height and width are shares of the photograph's height."""
    window = around(disc, round(height * len(disc)), round(width * len(disc)))
    return image[window], disc[window]


def without_disc(image: np.ndarray, disc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger part of the photograph to the left or to the right of the disc."""
    columns = np.flatnonzero(disc.any(axis=0))
    left, right = columns[0] - MARGIN_PX, columns[-1] + 1 + MARGIN_PX
    part = np.s_[:, :left] if left > disc.shape[1] - right else np.s_[:, right:]
    return image[part], disc[part]


CASES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "upright": lambda image, disc: (image, disc),
    "turned_90": lambda image, disc: (np.rot90(image), np.rot90(disc)),
    "turned_270": lambda image, disc: (np.rot90(image, 3), np.rot90(disc, 3)),
    "portrait": partial(cropped, height=1, width=0.7),
    "half": partial(cropped, height=0.5, width=0.5),
    "no_disc": without_disc,
}
"""By name: image (rows, columns, channels) and disc (rows, columns), both changed as in the case."""


def make(data: Path, folder: Path, cases: list[str]) -> dict[str, np.ndarray]:
    """Write the photographs; the disc of each by the name of its file."""
    folder.mkdir(parents=True, exist_ok=True)
    discs = {}
    for item in read_section(data, "test"):
        image, disc = np.asarray(Image.open(item["image"]).convert("RGB")), np.asarray(Image.open(item["label"])) > 0
        for case in cases:
            name = f"{case}-{Path(item['image']).stem}"
            changed, discs[name] = CASES[case](image, disc)
            Image.fromarray(np.ascontiguousarray(changed)).save(folder / f"{name}.png")
    return discs


def table_of_cases(discs: dict[str, np.ndarray], output: Path) -> str:
    """Dice where there is a disc, and in how many photographs of each case one was found."""
    dices: dict[str, list[float]] = {}
    found: dict[str, list[bool]] = {}
    for name, disc in discs.items():
        mask = np.asarray(Image.open(output / f"{name}_seg.png")) > 0
        case = name.split("-")[0]
        found.setdefault(case, []).append(bool(mask.any()))
        if disc.any():
            dices.setdefault(case, []).append(2 * np.sum(mask & disc) / (mask.sum() + disc.sum()))
    rows = []
    for case, flags in found.items():
        own = np.array(dices.get(case, []))
        numbers = (f"{own.mean():.3f}", f"{own.min():.3f}", np.sum(own < POOR_DICE)) if len(own) else ("-", "-", "-")
        rows.append([case, len(flags), sum(flags), *numbers])
    return markdown_table(("case", "photographs", "disc found in", "mean Dice", "lowest", "below 0.6"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with dataset.json")
    parser.add_argument("--output", type=Path, required=True, help="new folder of photographs and masks")
    parser.add_argument("--ckpt_path", type=Path, help="weights (default: the shipped ones)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    output = args.output.resolve()
    discs = make(args.data, output / "in", args.cases)
    weights = {"ckpt_path": args.ckpt_path.resolve()} if args.ckpt_path else {}
    places = {"dataset_dir": output / "in", "output_dir": output / "out"}
    run_bundle(BUNDLE, ["inference"], **places, **weights, resume="false")
    print(table_of_cases(discs, output / "out"))


if __name__ == "__main__":
    main()
