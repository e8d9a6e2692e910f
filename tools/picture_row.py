"""Draw the picture of README.md: the output of each bundle's shipped weights on an image that they were not trained on.

    python -m tools.picture_row [--data_root FOLDER] [--output docs/pictures.png] [--bundles BUNDLE ...]

Each panel is the output of the bundle's configs/inference.json, drawn over its image. Real images are shown if their
licence allows it: nuclei (CC0) and hippocampus (CC BY-SA), both from the bundle's test list; FOLDER contains
dsb2018_nuclei/ and msd_hippocampus/. All others are phantoms with another seed than the training phantoms, and their
panels say so. The same weights and images give the same file. The run takes a few minutes on a CPU core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from monai.utils import ensure_tuple
from PIL import Image, ImageDraw, ImageFont, ImageOps

from bundlekit.errors import InputError
from bundlekit.files import require_file, write_atomically
from bundlekit.inputs.datalists import read_section
from bundlekit.phantoms import make_dataset
from bundlekit.reports.drawing import load_displayed
from bundlekit.reports.panels import draw_panels
from tools.commands import run_bundle

ROOT = Path(__file__).resolve().parent.parent
PANEL_PX, GAP_PX, LINE_PX, FONT_PX = 300, 10, 20, 16
COLUMNS = 4
SEED = 7
"""Of the phantoms; those to train with have 0."""
PANELS_GAP_PX = 8
"""White around and between the panels of draw_panels."""
NUM_COLOURS = 256


@dataclass(frozen=True)
class Panel:
    """What is shown of a bundle: an image of a data set, or a phantom, segmented with some overrides.

    Args:
        what: one line below the bundle's name.
        real: the image's file, relative to the folder of the data sets; None for a phantom.
        overrides: of inference.json, as the phantoms need them.
        output: ending of the file that is drawn, after the image's name.
    """

    what: str
    real: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    output: str = "seg"


NUCLEI = "03b9306f44e9b8951461623dcbd615550cdcf36ea93b203f2c8fa58ed1dffcbe"
PANELS = {
    "membrane_em_segmentation": Panel("membranes (phantom)", overrides={"label_offset_px": "[0,0]"}),
    "gland_histology_segmentation": Panel("each gland of a colon (phantom)", overrides={"spacing": "1"}),
    "nuclei_microscopy_segmentation": Panel(
        "each nucleus", f"dsb2018_nuclei/images/{NUCLEI}.png", {"instances": "true"}, "instances"
    ),
    "optic_disc_fundus_segmentation": Panel("the optic disc (phantom)"),
    "lung_ct_segmentation": Panel("right and left lung (phantom)"),
    "hippocampus_mri_segmentation": Panel(
        "anterior and posterior part", "msd_hippocampus/images/hippocampus_105.nii.gz"
    ),
    "brain_tumor_mri_segmentation": Panel("parts of a tumour (phantom)", overrides={"patch_size": "[48,48,48]"}),
    "infant_brain_mri_segmentation": Panel("tissues of a brain (phantom)"),
}


def find_input(name: str, panel: Panel, data_root: Path, folder: Path, size: int | None) -> tuple[Path, Path]:
    """What inference is given, and the image that is shown.

    Args:
        name: of the bundle.
        panel: what is shown of it.
        data_root: folder of the data sets.
        folder: where a phantom is made.
        size: size of the phantom; None takes the bundle's.

    Raises:
        InputError: where the image is not there.
    """
    if panel.real is not None:
        path = data_root / panel.real
        require_file(path, "pass --data_root with the folder of the data sets, or leave the bundle out with --bundles")
        return path, path
    make_dataset(name, str(folder), training=0, validation=0, test=1, size=size, seed=SEED)
    [item] = read_section(folder, "test")
    return folder, Path(ensure_tuple(item["image"])[0])


def find_output(folder: Path, image: Path, ending: str) -> Path:
    """The file that inference has written for an image."""
    name = image.name.removesuffix(".nii.gz").removesuffix(image.suffix)
    paths = [folder / f"{name}_{ending}{suffix}" for suffix in (".png", ".nii.gz")]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise InputError(paths[0], "was not written", "the output of inference", "see its messages above")
    return found[0]


def draw_square(image: np.ndarray, labels: np.ndarray) -> Image.Image:
    """The panel "prediction" of draw_panels, cut to a square about what was found.

    Shape:
        ``labels``: ``(rows, columns[, slices])``; ``image``: the same, with channels last.
    """
    page = draw_panels(image, None, labels)
    width = (page.width - 3 * PANELS_GAP_PX) // 2
    height = round(width * labels.shape[0] / labels.shape[1])
    right, bottom = page.width - PANELS_GAP_PX, page.height - PANELS_GAP_PX
    panel = page.crop((right - width, bottom - height, right, bottom))
    places = np.argwhere(labels)[:, :2]
    row, column = (places.mean(0) + 0.5) / labels.shape[:2] if len(places) else (0.5, 0.5)
    return ImageOps.fit(panel, (PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS, centering=(float(column), float(row)))


def make_panel(name: str, panel: Panel, data_root: Path, work: Path, size: int | None) -> Image.Image:
    """Segment the panel's image by the bundle's shipped weights, on the CPU, and draw it."""
    source, image = find_input(name, panel, data_root, work / name / "data", size)
    output = work / name / "output"
    places = {"dataset_dir": source.resolve(), "output_dir": output, "device": "cpu"}
    run_bundle(ROOT / "bundles" / name, ["inference"], **places, **panel.overrides)
    labels = load_displayed(find_output(output, image, panel.output), is_label=True)[..., 0]
    return draw_square(load_displayed(image), labels)


def compose(panels: Mapping[str, Image.Image]) -> Image.Image:
    """The panels in rows, below each the bundle's name and what is shown; in few colours, so that the file is small."""
    step_x, step_y = PANEL_PX + GAP_PX, PANEL_PX + 2 * LINE_PX + GAP_PX
    columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    page = Image.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_PX)
    for i, (name, panel) in enumerate(panels.items()):
        x, y = GAP_PX + i % COLUMNS * step_x, GAP_PX + i // COLUMNS * step_y
        page.paste(panel, (x, y))
        draw.text((x, y + PANEL_PX + 2), name, "black", font)
        draw.text((x, y + PANEL_PX + LINE_PX + 2), PANELS[name].what, "dimgrey", font)
    return page.quantize(NUM_COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)


def make_pictures(bundles: Sequence[str], data_root: Path, output: Path, size: int | None = None) -> None:
    """Write the pictures of some bundles.

    Args:
        bundles: their names, in the order of the panels.
        data_root: folder of the data sets.
        output: PNG to write.
        size: size of the phantoms; None takes each bundle's.

    Raises:
        InputError: where an image is not there; nothing is written then.
    """
    for name in bundles:  # before minutes have gone by
        real = PANELS[name].real
        if real is not None:
            find_input(name, PANELS[name], data_root, output, size)
    with tempfile.TemporaryDirectory() as work:
        page = compose({name: make_panel(name, PANELS[name], data_root, Path(work), size) for name in bundles})
    write_atomically(output, lambda part: page.save(part, "PNG", optimize=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("DATA_ROOT", ROOT.parent / "shared/data")
    parser.add_argument(
        "--data_root", type=Path, default=default, help="folder of the data sets (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs/pictures.png", help="PNG (default: %(default)s)")
    parser.add_argument("--bundles", nargs="+", choices=list(PANELS), default=list(PANELS), help="default: all")
    parser.add_argument("--size", type=int, help="edge length of the phantoms (default: each bundle's)")
    args = parser.parse_args(arguments)
    try:
        make_pictures(args.bundles, args.data_root, args.output, args.size)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{args.output}: {args.output.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
