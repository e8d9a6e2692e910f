"""Programs of the repository, run from its root (``python -m tools.demo``); not part of the wheel."""
