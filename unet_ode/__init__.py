"""2-D U-Nets (some also 3-D, by ``spatial_dims``), neural ODE layers, and losses that MONAI lacks."""
