"""Inference on many files: evaluator, record of finished files, tiles, test-time augmentation, writers."""
