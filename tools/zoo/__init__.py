"""Packing of bundles for MONAI's model zoo; the program is ``python -m tools.zoo``."""
