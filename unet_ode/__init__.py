"""U-Nets in the plane and, by ``spatial_dims``, in volumes: networks, neural ODE layers and losses that MONAI lacks."""
