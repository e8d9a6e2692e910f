"""Plot the scores of U-Node over the number of evaluations per pass, for each solver, with the same weights.

    python -m tools.bench.accuracy_by_nfe --weights RUN/model.pt --dataset_dir DATA --output OUT.png

Every solver segments the same images of the list "test" with the gland bundle's configs. Also prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from monai.bundle import ConfigParser

from bundlekit.reports.solver import SolverReport
from studies.markdown import markdown_table

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/gland_histology_segmentation"
ADAPTIVE = ("bosh3", "dopri5")
SOLVERS: list[dict[str, Any]] = [
    *({"method": method, "rtol": 10.0**-i} for method in ADAPTIVE for i in range(1, 5)),
    *({"method": "euler", "num_steps": n} for n in (1, 2, 4, 8)),
    *({"method": "midpoint", "num_steps": n} for n in (1, 2, 4)),
    *({"method": "rk4", "num_steps": n} for n in (1, 2, 4)),
]


def name(solver: dict[str, Any]) -> str:
    if "rtol" in solver:
        return f"{solver['method']}, rtol {solver['rtol']:.0e}"
    return f"{solver['method']}, {solver['num_steps']} equal step{'s' if solver['num_steps'] > 1 else ''}"


def score(solver: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    """Object F1, object Dice and the mean number of evaluations a pass."""
    files = [BUNDLE / f"configs/{config}.json" for config in ("train", *args.overlays, "evaluate")]
    parser = ConfigParser(ConfigParser.load_config_files(files))
    with tempfile.TemporaryDirectory() as folder:
        places = {"dataset_dir": args.dataset_dir, "ckpt_path": args.weights, "output_dir": folder}
        parser.update({"bundle_root": str(BUNDLE), "tta": False, **places, **solver})
        parser["pooled_metrics"] = ["object_dice"]
        items = parser.get_parsed_content("validate::dataset::data")
        count = min(args.num_images, len(items))
        chosen = [items[i * len(items) // count] for i in range(count)]
        parser["validate::dataset::data"] = chosen
        evaluator = parser.get_parsed_content("validate::evaluator")
        SolverReport(parser.get_parsed_content("network"), folder).attach(evaluator)
        with contextlib.redirect_stdout(io.StringIO()):  # the report's own table
            evaluator.run()
        nfe = json.loads(Path(folder, "nfe.json").read_text())["mean"]
    metrics = evaluator.state.metrics
    scores = {key: float(metrics[f"val_{key}"]) for key in ("object_f1", "object_dice")}
    return {"nfe": nfe["total"], "images": len(chosen), **scores}


def draw(rows: list[tuple[dict[str, Any], dict[str, float]]], path: Path) -> None:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, key, title in zip(
        figure.subplots(1, 2), ("object_f1", "object_dice"), ("object F1", "object Dice"), strict=True
    ):
        for method in dict.fromkeys(solver["method"] for solver, _ in rows):
            points = [(scores["nfe"], scores[key]) for solver, scores in rows if solver["method"] == method]
            label = f"{method}, rtol 1e-1 to 1e-4" if method in ADAPTIVE else f"{method}, more steps to the right"
            axes.plot(*zip(*points, strict=True), marker="o" if method in ADAPTIVE else "s", label=label)
        axes.set(xscale="log", xlabel="evaluations of the nine fields in a pass", title=title)
        axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="state_dict of U-Node")
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--overlays", nargs="*", default=["data_nuclei"], help="overlays of train.json for this data")
    parser.add_argument("--num_images", type=int, default=24, help="as many images, evenly spaced in the list")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    args = parser.parse_args()
    rows = []
    print(markdown_table(["solver", "evaluations a pass", "object F1", "object Dice"], []))
    for solver in SOLVERS:
        scores = score(solver, args)
        rows.append((solver, scores))
        figures = f"{scores['nfe']:.0f} | {scores['object_f1']:.3f} | {scores['object_dice']:.3f}"
        print(f"| {name(solver)} | {figures} |", flush=True)
    draw(rows, args.output)
    print(f"\n{rows[0][1]['images']} images; figure: {args.output}")


if __name__ == "__main__":
    main()
