"""Federated averaging with MONAI's MonaiAlgo: two clients, two rounds, a 2-D and a 3-D bundle."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, run

from bundlekit.phantoms import make_dataset

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("federated", ROOT / "tools/federated.py")
federated = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(federated)

NUCLEI = "nuclei_microscopy_segmentation"
SMALL = {
    NUCLEI: (64, ["batch_size=2"]),
    "hippocampus_mri_segmentation": (32, ["patch_size=[16,16,16]", "crop_size=[24,24,24]", "crops_per_volume=1"]),
}
NUM_IMAGES = (2, 3)


def start(bundle: str, folder: Path, *words: str, rounds: int = 2, out: str = "out") -> list[dict[str, Any]]:
    sites = [str(folder / f"site{i}") for i in (1, 2)]
    settings = ["--overlays", "fit_demo", "--set", "device=cpu", *SMALL[bundle][1]]
    command = [bundle, "--clients", *sites, "--output", str(folder / out), "--rounds", str(rounds), *settings, *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["federated.py", *command])
        federated.main()
    return json.loads((folder / out / "rounds.json").read_text())


def make_sites(bundle: str, folder: Path) -> None:
    for i, count in enumerate(NUM_IMAGES, 1):
        make_dataset(bundle, folder / f"site{i}", training=count, validation=1, test=1, size=SMALL[bundle][0], seed=i)


def load(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("bundle", ["hippocampus_mri_segmentation", pytest.param(NUCLEI, marks=pytest.mark.slow)])
def test_two_clients_average_two_rounds(bundle, tmp_path, monkeypatch):
    make_sites(bundle, tmp_path)
    seen: list[dict[str, Any]] = []
    train = federated.Client.train

    def note(client, weights):
        before = {name: value.clone() for name, value in weights.items()}
        after, loss = train(client, weights)
        seen.append({"before": before, "after": after})
        return after, loss

    monkeypatch.setattr(federated.Client, "train", note)
    rounds = start(bundle, tmp_path)
    assert [entry["round"] for entry in rounds] == [1, 2]
    first, second = seen[:2], seen[2:]
    assert len(seen) == 4
    final = load(tmp_path / "out/model.pt")
    for pair, averaged in ((first, second[0]["before"]), (second, final)):
        a, b = (client["after"] for client in pair)
        assert a.keys() == b.keys() == averaged.keys()
        for name, value in averaged.items():
            assert torch.equal(pair[0]["before"][name], pair[1]["before"][name])  # clients begin alike
            wanted = (2 * a[name].double() + 3 * b[name].double()) / 5
            if not value.is_floating_point():
                wanted = torch.maximum(a[name], b[name]).double()
            torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-8, msg=name)
        trained = [name for name in a if a[name].is_floating_point() and not torch.equal(a[name], b[name])]
        assert len(trained) > len(a) / 2  # each learned from images of its own
    assert any(not torch.equal(final[name], second[0]["before"][name]) for name in final)
    for entry in rounds:
        assert [client["images"] for client in entry["clients"]] == list(NUM_IMAGES)
        assert all(0 <= client["val_mean_dice"] <= 1 for client in entry["clients"])

    out = tmp_path / "masks"
    run(
        config_file=str(ROOT / f"bundles/{bundle}/configs/inference.json"),
        logging_file=False,
        bundle_root=str(ROOT / f"bundles/{bundle}"),
        dataset_dir=str(tmp_path / "site1"),
        output_dir=str(out),
        ckpt_path=str(tmp_path / "out/model.pt"),
        device="cpu",
        **{name: value for name, value in map(federated.setting, SMALL[bundle][1]) if name == "patch_size"},
    )
    assert len(list(out.glob("*_seg.*"))) == 1


def test_schedule_spans_all_rounds_and_goes_on_after_a_kill(tmp_path, monkeypatch, capsys):
    bundle = "nuclei_microscopy_segmentation"
    make_sites(bundle, tmp_path)
    score, calls = federated.Client.score, []

    def killed(client, weights):
        calls.append(client.name)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return score(client, weights)

    monkeypatch.setattr(federated.Client, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        start(bundle, tmp_path, rounds=3)
    after_one = load(tmp_path / "out/model.pt")
    monkeypatch.setattr(federated.Client, "score", score)
    state = load(tmp_path / "out/state.pt")
    assert len(state["rounds"]) == 1 and all(torch.equal(state["weights"][name], after_one[name]) for name in after_one)
    resumed = start(bundle, tmp_path, rounds=3)
    assert [entry["round"] for entry in resumed] == [1, 2, 3]
    assert capsys.readouterr().out.splitlines()[-1].startswith("round 3 of 3: loss client1 ")

    assert resumed == start(bundle, tmp_path, rounds=3, out="unbroken")
    for path in ("model.pt", "client1/model.pt", "client2/model.pt"):
        ours, wanted = load(tmp_path / "out" / path), load(tmp_path / "unbroken" / path)
        assert all(torch.equal(value, wanted[name]) for name, value in ours.items()), path
    history = json.loads((tmp_path / "out/client1/history.json").read_text())
    assert history == json.loads((tmp_path / "unbroken/client1/history.json").read_text())
    rate = ConfigParser.load_config_files(
        [ROOT / f"bundles/{bundle}/configs/{name}.json" for name in ("train", "fit_demo")]
    )["learning_rate"]
    rates = [value for _, value in history["lr"]]
    assert rates == pytest.approx([rate * share for share in (1, 0.75, 0.25)], rel=1e-6)  # a cosine of three epochs

    (tmp_path / "out/model.pt").unlink()
    capsys.readouterr()
    assert start(bundle, tmp_path, rounds=3) == resumed
    assert capsys.readouterr().out == f"all 3 rounds are done: {tmp_path / 'out/model.pt'}\n"
    assert (tmp_path / "out/model.pt").is_file()
    for words, rounds, told in (
        (["--local_epochs", "2"], 3, "--local_epochs 1, not 2"),
        (["--seed", "1"], 3, "--seed 0, not 1"),
        ([], 4, "--rounds 3, not 4"),
    ):
        with pytest.raises(SystemExit, match=rf"^error: .*state.pt: was started with {told}; pass the same again, or "):
            start(bundle, tmp_path, *words, rounds=rounds)


def test_a_state_of_another_program_is_named(tmp_path):
    bundle = "nuclei_microscopy_segmentation"
    make_sites(bundle, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/state.pt").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"expected the state of this program, found other content .*; pass another"):
        start(bundle, tmp_path)


def test_a_folder_without_data_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"^error: .*site1: has no dataset.json; expected .*; correct --clients$"):
        start("nuclei_microscopy_segmentation", tmp_path)


def test_a_setting_needs_a_value(capsys, tmp_path):
    with pytest.raises(SystemExit):
        start("nuclei_microscopy_segmentation", tmp_path, "--set", "batch_size")
    assert "'batch_size' is not a setting; expected NAME=VALUE" in capsys.readouterr().err
