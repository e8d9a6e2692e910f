"""Stands in for ITK where it is not installed, so that what imports it can be imported; it reads no file."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"itk.{name} is needed, and ITK is not installed; expected it; run pip install itk")
