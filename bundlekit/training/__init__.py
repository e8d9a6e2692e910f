"""Resumable training state, seeds, precision, loss terms, and an encoder that is unfrozen during training."""
