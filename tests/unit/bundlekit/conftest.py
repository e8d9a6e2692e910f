"""What the tests of a run's checks share: a folder of pairs, and the end of a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def make_pairs() -> Callable[..., Path]:
    def make_pairs(folder: Path, *bad: str, good: int = 2) -> Path:
        """A list "training" with ``good`` pairs and, for each name in ``bad``, a pair whose image is cut in half."""
        names = [f"good{i}.png" for i in range(good)] + list(bad)
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True)
            for name in names:
                Image.fromarray(np.eye(32, dtype=np.uint8)).save(folder / kind / name)
        for name in bad:
            path = folder / "images" / name
            path.write_bytes(path.read_bytes()[:40])
        items = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
        (folder / "dataset.json").write_text(json.dumps({"training": items}))
        return folder

    return make_pairs


@pytest.fixture
def stop(capsys) -> Callable[[Callable[[], Any]], list[str]]:
    def stop(call: Callable[[], Any]) -> list[str]:
        """The lines on stderr of a call that ends the process."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            call()
        assert caught.value.code == 1
        return capsys.readouterr().err.splitlines()

    return stop
