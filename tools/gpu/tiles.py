"""Step: overlap tiles next to MONAI's sliding window: pixels per second, memory, and pixels as in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.inferers import Inferer
from torch import nn

from bundlekit.inference.tiles import OverlapTileInferer
from tools.bench.overlap_tiles import BASE, BORDER_PX, BUNDLE, OURS, contenders, load_image
from tools.bundle_folder import load_network
from tools.gpu.results import Report
from tools.gpu.timing import Settings, measure_cost

__all__ = ["run"]

SIZE, SMALL_SIZE = 3072, 576
LEAST_EQUAL = 0.999
COLUMNS = ["", "pixels per second", "ms", "MiB", "pixels as in one pass"]


@torch.no_grad()
def cells(
    inferer: Inferer, image: torch.Tensor, network: nn.Module, whole: torch.Tensor, settings: Settings
) -> tuple[Sequence[str], float]:
    """The figures of one method, and the share of pixels away from the border that are as in one pass."""
    inner = (..., *(slice(BORDER_PX, side - BORDER_PX) for side in image.shape[2:]))
    outputs: list[torch.Tensor] = []

    def infer() -> None:
        outputs[:] = [inferer(image, network)]

    cost = measure_cost(infer, settings.device, 1 if settings.small else 3)
    equal = float(((outputs[0][inner] > 0) == whole[inner]).float().mean())
    return [f"{image[0, 0].numel() / cost.seconds:,.0f}", *cost.cells, f"{equal:.3%}"], equal


@torch.no_grad()
def run(report: Report, settings: Settings) -> None:
    """Measure all methods in float32 and the bundle's in bfloat16.

    Args:
        report: takes a row for each.
        settings: device and sizes.
    """
    size = SMALL_SIZE if settings.small else SIZE
    network = load_network(BUNDLE).to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = load_image(None, size).to(settings.device)
    whole = OverlapTileInferer(-(-size // 32) * 32, 0, divisor=32)(image, network) > 0
    methods = {OURS: contenders()[OURS], BASE: contenders()[BASE], **({} if settings.small else contenders())}

    def measured(make: object, name: str, amp: bool) -> Sequence[str]:
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=amp):
            row, equal = cells(make(), image, network, whole, settings)  # type: ignore[operator]
        if name == OURS and not amp:
            what = f"overlap tiles give at least {LEAST_EQUAL:.1%} of the pixels as in one pass"
            report.check(what, equal >= LEAST_EQUAL, f"{equal:.3%}")
        return row

    for amp in (False, True):
        title = f"{size} x {size} px, {'bfloat16' if amp else 'float32'}"
        for name, make in list(methods.items())[: 2 if amp else None]:
            report.measure(title, COLUMNS, name, lambda m=make, n=name, a=amp: measured(m, n, a))
