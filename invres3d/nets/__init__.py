"""Networks of the paper, one per file; each returns logits."""

from .fully_invertible import FullyInvertibleUNet
from .partially_invertible import PartiallyInvertibleUNet
from .unet3d import UNet3D

__all__ = ["FullyInvertibleUNet", "PartiallyInvertibleUNet", "UNet3D"]
