"""Chains of reversible steps, trained without storing what lies between their input and their output."""
