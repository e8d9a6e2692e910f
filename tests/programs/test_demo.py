"""What the demo says to inference.json: the overrides of fit_demo.json that inference.json knows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "tools/demo.py"
SPEC = importlib.util.spec_from_file_location("demo", PATH)
demo = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(demo)


def test_inference_hears_of_what_both_configs_have(tmp_path):
    configs = {
        "fit_demo": {"_desc_": "short", "max_epochs": 12, "label_offset_px": [0, 0.5], "seed": 3},
        "inference": {"_desc_": "segment", "label_offset_px": [1, 1], "tta": False, "seed": 0},
    }
    (tmp_path / "configs").mkdir()
    for name, content in configs.items():
        (tmp_path / f"configs/{name}.json").write_text(json.dumps(content))
    # max_epochs belongs only to the training, tta is not changed, _desc_ is no parameter
    assert demo.shared_overrides(tmp_path) == ["--label_offset_px", "[0, 0.5]", "--seed", "3"]
