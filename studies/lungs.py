"""Measure the errors of the lung volumes that the lung bundle reports, on phantoms of known volume, case by case.

    python -m studies.lungs --output runs/lung_limits [--ckpt_path MODEL] [--cases adults infants --num_chests 2]

For each case, NUM_CHESTS phantoms are made that the shipped weights were not trained on: adults, children and infants,
several grids, noise, light and dense lungs, and lungs cut off by the side of a volume or by padding. They are segmented
with `monai.bundle run`, and the errors of right and left lung are printed in percent of the true volume. The true
volume is the volume of the lung's shape in closed form; if a lung is cut off or hidden by padding, it is the volume of
the remaining voxels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy.spatial.transform import Rotation

from bundlekit.phantoms import Phantom
from bundlekit.phantoms.thorax import thorax
from studies.markdown import markdown_table
from tools.commands import run_bundle

BUNDLE = Path(__file__).resolve().parent.parent / "bundles/lung_ct_segmentation"
LUNGS = {"right": 1, "left": 2}
SIZE = 160
"""Voxels along x and y of 2.4 mm; slices are 3 mm thick."""
FIELD = 96
"""Voxels along x and y of a field that an infant fills."""
INFANT = (1 / 3, 0.4)
Rng = np.random.Generator


class Volume(NamedTuple):
    """Hounsfield units on a grid, and the ml that each lung measures."""

    hu: np.ndarray
    affine: np.ndarray
    truth_ml: dict[str, float]


def whole(phantom: Phantom) -> Volume:
    return Volume(phantom.image, phantom.affine, {name: phantom.truth[f"{name}_ml"] for name in LUNGS})


def chest(rng: Rng, low: float = 1.0, high: float = 1.0) -> Phantom:
    """A chest of a stature between two parts of a grown-up's."""
    return thorax(rng, SIZE, stature=float(rng.uniform(low, high)))


def crop(phantom: Phantom, box: tuple[slice, ...]) -> Phantom:
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start or 0 for side in box]
    return Phantom(phantom.image[box], phantom.label[box], phantom.truth, affine)


def narrow_field(rng: Rng) -> Volume:
    """An infant in a field as small as its body, in pixels as small as that."""
    stature = float(rng.uniform(*INFANT))
    phantom = thorax(rng, round(FIELD / stature), stature=stature)
    start = (phantom.image.shape[0] - FIELD) // 2
    return whole(crop(phantom, np.s_[start : start + FIELD, start : start + FIELD, :]))


def on_grid(phantom: Phantom, spacing_mm: tuple[float, float, float], turn_deg: Sequence[float] = (0, 0, 0)) -> Volume:
    """The same chest, interpolated on other voxels about the same middle, turned about each axis."""
    turn = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix() @ np.diag([-1, -1, 1])
    extent_mm = nib.affines.voxel_sizes(phantom.affine) * phantom.image.shape
    shape = np.ceil((1.15 if any(turn_deg) else 1) * extent_mm / spacing_mm).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing_mm
    middle_mm = phantom.affine @ [*(np.array(phantom.image.shape) - 1) / 2, 1]
    affine[:3, 3] = middle_mm[:3] - affine[:3, :3] @ (shape - 1) / 2
    image = nib.Nifti1Image(phantom.image.astype(np.float32), phantom.affine)
    hu = np.rint(resample_from_to(image, (tuple(shape), affine), order=1, cval=-1000).get_fdata(dtype=np.float32))
    return whole(phantom)._replace(hu=hu.astype(np.int16), affine=affine)


def noisy(phantom: Phantom, rng: Rng, std_hu: float) -> Volume:
    hu = phantom.image + std_hu * rng.standard_normal(phantom.image.shape)
    return whole(phantom)._replace(hu=np.clip(np.rint(hu), -1024, 3071).astype(np.int16))


def with_density(phantom: Phantom, mean_hu: float) -> Phantom:
    """Lungs of another mean outside vessels and nodule, which stay as they are, with the noise."""
    air = (phantom.label > 0) & (phantom.image < -500)
    hu = np.where(air, phantom.image + np.int16(mean_hu - phantom.image[air].mean()), phantom.image)
    return Phantom(hu.clip(-1024).astype(np.int16), phantom.label, phantom.truth, phantom.affine)


def what_is_left(phantom: Phantom, kept: np.ndarray | bool = True) -> Volume:
    """A volume whose truth is computed from the voxels that are kept; the others become padding."""
    voxel_ml = abs(np.linalg.det(phantom.affine)) / 1000
    truth_ml = {name: float(((phantom.label == value) & kept).sum() * voxel_ml) for name, value in LUNGS.items()}
    return Volume(np.where(kept, phantom.image, -3024).astype(np.int16), phantom.affine, truth_ml)


def cut_by_side(phantom: Phantom, share: float = 0.2) -> Volume:
    """The volume ends within the right lung, at low x, and leaves out the outer fifth of it."""
    counts = (phantom.label == LUNGS["right"]).sum(axis=(1, 2))
    start = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return what_is_left(crop(phantom, np.s_[start:, :, :]))


def cut_by_padding(phantom: Phantom, radius: float = 0.3) -> Volume:
    """A circle of padding that is too narrow, its radius a part of the volume's side."""
    side = phantom.image.shape[0]
    x, y = np.ogrid[:side, :side]
    inside = np.hypot(x - (side - 1) / 2, y - (side - 1) / 2) <= radius * side
    return what_is_left(phantom, inside[..., None])


def of_density(mean_hu: float, then: Callable[[Phantom], Volume], rng: Rng) -> Volume:
    return then(with_density(chest(rng), mean_hu))


CASES: dict[str, Callable[[Rng], Volume]] = {
    "adults": lambda rng: whole(chest(rng)),
    "children": lambda rng: whole(chest(rng, 0.4, 1)),
    "infants": lambda rng: whole(chest(rng, *INFANT)),
    "infants_narrow_field": narrow_field,
    "infants_5_mm": lambda rng: on_grid(chest(rng, *INFANT), (0.8, 0.8, 5)),
    "slices_1_mm": lambda rng: on_grid(chest(rng), (1, 1, 1)),
    "slices_5_mm": lambda rng: on_grid(chest(rng), (0.8, 0.8, 5)),
    "coarse": lambda rng: on_grid(chest(rng), (2.5, 3.5, 7)),
    "oblique": lambda rng: on_grid(chest(rng), (1.5, 1.5, 3), turn_deg=rng.uniform(-15, 15, 3)),
    "noise_100_hu": lambda rng: noisy(chest(rng), rng, 100),
    **{f"lungs_{-hu}_hu": partial(of_density, hu, whole) for hu in (-950, -930, -900, -650)},
    **{f"side_{-hu}_hu": partial(of_density, hu, cut_by_side) for hu in (-950, -910, -830)},
    **{f"padding_{-hu}_hu": partial(of_density, hu, cut_by_padding) for hu in (-950, -910, -830)},
}
"""By name. Numbers of Hounsfield units are below zero: the lungs' mean without vessels and nodule."""


def make(folder: Path, cases: list[str], num_chests: int, seed: int) -> dict[str, dict[str, float]]:
    """Write the volumes; the truth by the name of each file."""
    folder.mkdir(parents=True, exist_ok=True)
    truth_ml = {}
    for case in cases:
        for i in range(num_chests):
            volume = CASES[case](np.random.default_rng([seed, i]))
            name = f"{case}-{i}.nii.gz"
            nib.save(nib.Nifti1Image(volume.hu, volume.affine), folder / name)
            truth_ml[name] = volume.truth_ml
    return truth_ml


def table_of_errors(volumes: list[dict], truth_ml: dict[str, dict[str, float]]) -> str:
    """Mean and worst error of each case's lungs, in percent of the truth."""
    errors: dict[str, list[float]] = {}
    for name, truth in truth_ml.items():
        [measured] = [volume for volume in volumes if volume["image"] == name]
        own = [100 * (measured[lung]["volume_ml"] / truth[lung] - 1) for lung in LUNGS]
        errors.setdefault(name.rsplit("-", 1)[0], []).extend(own)
    rows = [
        (case, len(found), f"{np.mean(found):+.1f} %", f"{max(found, key=abs):+.1f} %")
        for case, found in errors.items()
    ]
    return markdown_table(("case", "lungs", "mean error", "worst"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="new folder of volumes and masks")
    parser.add_argument("--ckpt_path", type=Path, help="weights (default: the shipped ones)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--num_chests", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1000)
    args = parser.parse_args()
    output = args.output.resolve()
    truth_ml = make(output / "in", args.cases, args.num_chests, args.seed)
    weights = {"ckpt_path": args.ckpt_path.resolve()} if args.ckpt_path else {}
    places = {"dataset_dir": output / "in", "output_dir": output / "out"}
    run_bundle(BUNDLE, ["inference"], **places, **weights, report="true", resume="false")
    print(table_of_errors(json.loads((output / "out/report.json").read_text())["volumes"], truth_ml))


if __name__ == "__main__":
    main()
