"""The U-Net family in the plane: networks, losses, transforms, inference and measures that MONAI lacks."""
