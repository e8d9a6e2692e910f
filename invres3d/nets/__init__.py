"""Networks of the paper, each a `torch.nn.Module` that gives logits."""

from .fully_invertible import FullyInvertibleUNet
from .partially_invertible import PartiallyInvertibleUNet
from .unet3d import UNet3D

__all__ = ["FullyInvertibleUNet", "PartiallyInvertibleUNet", "UNet3D"]
