"""The steps in the order of their importance, each with its time limit."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["STEPS", "Step"]


class Step(NamedTuple):
    """A part of the run that has a process of its own.

    Args:
        name: as on the command line.
        module: of this package; has ``run(report, settings, *arguments)``.
        arguments: for ``run``.
        limit_s: seconds after which the process is ended.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    limit_s: float = 90


def bundle(name: str) -> Step:
    return Step(f"bundle-{name.split('_')[0]}", "bundles", (name,))


def memory(side: int, precision: str) -> Step:
    return Step(f"invres3d-{side}-{precision}", "invertible", (str(side), precision), 60)


STEPS = (
    Step("machine", "machine", limit_s=60),
    bundle("hippocampus_mri_segmentation"),
    bundle("nuclei_microscopy_segmentation"),
    bundle("gland_histology_segmentation"),
    Step("solvers", "solvers", limit_s=150),
    Step("processes", "distributed", limit_s=60),
    Step("volumes", "volumes"),
    Step("plan", "predictions", limit_s=120),
    memory(128, "fp32"),
    memory(128, "bf16"),
    bundle("brain_tumor_mri_segmentation"),
    bundle("lung_ct_segmentation"),
    bundle("membrane_em_segmentation"),
    bundle("optic_disc_fundus_segmentation"),
    bundle("infant_brain_mri_segmentation"),
    Step("graphs", "graphs", limit_s=60),
    Step("tiles", "tiles", limit_s=60),
    memory(64, "fp32"),
    memory(64, "bf16"),
    memory(96, "fp32"),
    memory(96, "bf16"),
    Step("layouts", "layouts", limit_s=120),
)
