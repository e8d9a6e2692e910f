"""Networks of the paper, each a `torch.nn.Module` that gives logits."""

from .unet3d import UNet3D

__all__ = ["UNet3D"]
