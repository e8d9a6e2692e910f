"""From a download to images/, labels/ and dataset.json: for the bundles' prepare_data.py. No torch, no MONAI."""
