"""Networks, one per file."""

from .encoder import Encoder
from .localizer import Localizer
from .localizer_unet import LocalizerUNet, load_localizer, transfer_encoder
from .pixel_classifier import PixelClassifier
from .reference import from_reference_state_dict
from .unet import UNet
from .unode import PAPER_SOLVER, UNode
from .uresnet import UResNet
from .vgg_unet import VGGUNet
from .vgg_weights import load_encoder

__all__ = [
    "PAPER_SOLVER",
    "Encoder",
    "Localizer",
    "LocalizerUNet",
    "PixelClassifier",
    "UNet",
    "UNode",
    "UResNet",
    "VGGUNet",
    "from_reference_state_dict",
    "load_encoder",
    "load_localizer",
    "transfer_encoder",
]
