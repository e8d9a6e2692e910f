"""Converts downloads to images/, labels/ and dataset.json, for the bundles' prepare_data.py; no torch, no MONAI."""
