"""Programs of the repository; none is part of the wheel. Run from its root: ``python -m tools.demo``."""
