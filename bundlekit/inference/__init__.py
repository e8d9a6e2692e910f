"""Segmenting many files: tiles, symmetries, writers and the record of what is finished."""
