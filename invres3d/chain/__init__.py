"""Chains of invertible steps, trained without storing the states in between."""
