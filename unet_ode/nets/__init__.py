"""Networks, one per file."""

from .pixel_classifier import PixelClassifier
from .reference import from_reference_state_dict
from .unet import UNet
from .unode import PAPER_SOLVER, UNode
from .uresnet import UResNet

__all__ = ["PAPER_SOLVER", "PixelClassifier", "UNet", "UNode", "UResNet", "from_reference_state_dict"]
