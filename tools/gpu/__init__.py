"""Checks and measures all bundles and networks on a machine with a GPU: ``python -m tools.gpu --output OUT``."""
