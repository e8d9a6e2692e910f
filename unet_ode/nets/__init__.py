"""Networks of the papers, each a `torch.nn.Module` that gives logits."""

from .pixel_classifier import PixelClassifier
from .unet import UNet

__all__ = ["PixelClassifier", "UNet"]
