"""Networks of the papers, each a `torch.nn.Module` that gives logits."""

from .unet import UNet

__all__ = ["UNet"]
