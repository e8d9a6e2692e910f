"""What is packed for the model zoo: complete, the same twice, its hosted weights to be had, and usable on its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import yaml

import tools.zoo.faults
from bundlekit.files import compute_sha256
from tests import commands
from tools.bundle_folder import load_network
from tools.formats import SHIPPED
from tools.zoo.contents import NEEDED, WEIGHTS, files_of, left_out
from tools.zoo.faults import SAID, VERSIONS, faults
from tools.zoo.packing import pack

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parent.parent for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
assert BUNDLES
SMALL = ROOT / "bundles/lung_ct_segmentation"


@pytest.fixture
def bundle(tmp_path):
    return Path(shutil.copytree(SMALL, tmp_path / SMALL.name))


def change_metadata(bundle: Path, **changed) -> None:
    path = bundle / "configs/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.slow  # the contracts say the same of each part
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_every_bundle_is_fit(bundle):
    assert list(faults(bundle)) == []


def test_what_is_missing_is_told_at_once(bundle):
    (bundle / "LICENSE").unlink()
    (bundle / "models/model.ts").write_bytes(b"")
    found = list(faults(bundle))
    assert [fault.split(": ")[0] for fault in found] == [f"{bundle}/LICENSE", f"{bundle}/models/model.ts"]


def test_versions_that_do_not_fit(bundle):
    change_metadata(bundle, version="0.2", required_packages_version={"unet-bundles": "0.0.1"})
    version, required, *embedded = faults(bundle)
    for name, fault in zip(SHIPPED, embedded, strict=True):
        assert f"model.{name}: has no metadata.json, or another one than configs/" in fault
    assert "version is 0.2; expected x.y.z with an entry in changelog" in version
    assert "has unet-bundles 0.0.1; expected 0.1.0" in required


def test_scripted_weights_have_to_be_those_of_the_other_file(bundle):
    path = bundle / "models/model.pt"
    state = torch.load(path, weights_only=True)
    state[next(iter(state))].flatten()[0] += 1
    torch.save(state, path)
    for name, fault in zip(SHIPPED, faults(bundle), strict=True):
        told = f"model.{name}: has other weights than model.pt; expected the same weights; run make export"
        assert told in fault


def test_a_script_that_computes_something_else(bundle):
    path = bundle / "models/model.ts"
    network = load_network(bundle)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU | torch.nn.LeakyReLU | torch.nn.PReLU):
                setattr(module, name, torch.nn.Tanh())
    texts = {name: (bundle / f"configs/{name}").read_text() for name in ("metadata.json", "inference.json")}
    torch.jit.save(torch.jit.script(network), path, _extra_files=texts)
    (fault,) = faults(bundle)
    assert "model.ts: differs from the network of inference.json by" in fault and "expected at most 0.0001" in fault


@pytest.mark.parametrize("key", SAID)
def test_metadata_that_the_zoo_asks_for(bundle, key):
    change_metadata(bundle, **{key: " "})
    said, *embedded = faults(bundle)
    assert f"metadata.json: has no text for {key}; expected one for each" in said
    assert all("or another one than configs" in fault for fault in embedded)


@pytest.mark.parametrize(
    "tensors", [{}, {"inputs": []}, {"inputs": {"image": {"num_channels": 7, "spatial_shape": ["32*n", "32*n"]}}}]
)
def test_metadata_of_no_image_that_the_network_takes(bundle, tensors):
    change_metadata(bundle, network_data_format=tensors)
    (fault,) = faults(bundle)
    assert "metadata.json: network_data_format cannot be used" in fault


@pytest.mark.parametrize("content", [None, b"junk"])
def test_weights_that_a_config_names(tmp_path, content):
    optic = ROOT / "bundles/optic_disc_fundus_segmentation"
    bundle = Path(shutil.copytree(optic, tmp_path / optic.name, ignore=shutil.ignore_patterns("data", "eval")))
    path = bundle / "models/localizer.pt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (fault,) = faults(bundle)
    assert fault.startswith(f"{path}: ") and "expected" in fault


def test_a_large_file_is_named(bundle):
    with (bundle / "docs/atlas.png").open("wb") as file:
        file.truncate(26_000_000)
    (fault,) = faults(bundle)
    assert "docs/atlas.png: has 26.0 MB; expected at most 25; make it smaller" in fault


def test_hosted_weights_may_be_large(bundle, monkeypatch):
    monkeypatch.setattr(tools.zoo.faults, "LARGEST_MB", 1)
    assert ["pass --host" in fault for fault in faults(bundle)] == [True] * len(WEIGHTS)
    assert list(faults(bundle, "https://example.org")) == []


def test_a_link_is_not_packed_and_so_no_license(bundle):
    (bundle / "LICENSE").unlink()
    (bundle / "LICENSE").symlink_to(ROOT / "LICENSE")
    assert list(faults(bundle)) == [f"{bundle}/LICENSE: is a link; expected the file or folder itself; copy it there"]


def test_a_folder_that_is_a_link(bundle, tmp_path):
    shutil.move(bundle / "docs", tmp_path / "elsewhere")
    (bundle / "docs").symlink_to(tmp_path / "elsewhere")
    (bundle / "data").symlink_to(tmp_path)  # images may lie anywhere
    assert list(faults(bundle)) == [f"{bundle}/docs: is a link; expected the file or folder itself; copy it there"]


class Refusing(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.ndim == 4:
            raise ValueError("no")
        return self.inner(image)


def test_a_script_that_fails_or_holds_no_configs(bundle):
    path = bundle / "models/model.ts"
    torch.jit.save(torch.jit.load(path), path)
    for fault, name in zip(faults(bundle), ("metadata.json", "inference.json"), strict=True):
        assert f"model.ts: has no {name}, or another one than configs/; expected the {name} of configs/" in fault
    torch.jit.save(torch.jit.script(Refusing(load_network(bundle))), path)
    (fault,) = faults(bundle)
    assert "model.ts: cannot be loaded and run (Error" in fault and len(fault.splitlines()) == 1
    path.write_bytes((SMALL / "models/model.ts").read_bytes()[:-1000])
    (fault,) = faults(bundle)
    assert "model.ts: cannot be loaded and run" in fault


def test_what_is_not_packed_hinders_nothing(bundle):
    (bundle / "configs/._train.json").write_bytes(b"\0")
    for folder in ("docs/data", "configs/eval"):
        (bundle / folder).mkdir()
        (bundle / folder / "patient.json").write_text("{")
        (bundle / folder / "patient.png").write_bytes(b"private")
    assert list(faults(bundle)) == []
    assert not [path for path in files_of(bundle) if "patient" in path.name or path.name.startswith(".")]


@pytest.mark.parametrize("name", ["metadata", "inference", "net_paper", "sites/one"])
@pytest.mark.parametrize("text", [b"{", b"[1]", b"", b'{"note": "\xe9"}'])
def test_configs_that_cannot_be_read(bundle, name, text):
    path = bundle / f"configs/{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)
    (fault,) = faults(bundle)
    assert fault.startswith(f"{path}: ") and "expected" in fault and len(fault.splitlines()) == 1


@pytest.mark.parametrize(
    "changed", [{"changelog": None}, {"changelog": ["0.1.0"]}, {"changelog": {"0.1.0": " "}}, {"version": None}]
)
def test_a_changelog_that_is_none(bundle, changed):
    change_metadata(bundle, **changed)
    assert "with an entry in changelog" in next(faults(bundle))


@pytest.mark.parametrize("required", [None, ["unet-bundles"], {}])
def test_required_packages_without_a_version(bundle, required):
    change_metadata(bundle, required_packages_version=required)
    assert "expected 0.1.0, as in setup.cfg" in next(faults(bundle))


def test_a_network_that_cannot_be_built(bundle):
    path = bundle / "configs/inference.json"
    config = json.loads(path.read_text())
    config["network_def"]["width"] = "broad"
    path.write_text(json.dumps(config))
    (fault,) = faults(bundle)
    assert "inference.json: network_def cannot be built" in fault


def change_inference(bundle: Path) -> None:
    path = bundle / "configs/inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": 1}))


@pytest.mark.parametrize(
    ("change", "name"),
    [(lambda bundle: change_metadata(bundle, intended_use="none"), "metadata"), (change_inference, "inference")],
)
def test_configs_that_were_changed_after_the_export(bundle, change, name):
    change(bundle)
    for ending, fault in zip(SHIPPED, faults(bundle), strict=True):
        assert (
            f"model.{ending}: has no {name}.json, or another one than configs/; expected the {name}.json of configs/; "
            in fault
        )
        assert "; run make export BUNDLE=lung_ct_segmentation, unless" in fault


def save(bundle: Path, change) -> None:
    path = bundle / "models/model.pt"
    torch.save(change(torch.load(path, weights_only=True)), path)


def with_nan(state):
    next(value for value in state.values() if value.ndim == 4)[0, 0, 0, 0] = float("nan")
    return state


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: {"network": state}, "save only network.state_dict()"),
        (
            lambda state: {key: value.double() for key, value in state.items()},
            "of torch.float64; expected torch",
        ),
        (with_nan, "weight: 1 of 144); expected finite weights"),
        (lambda state: dict(list(state.items())[1:]), "1 missing"),
    ],
)
def test_weights_that_nobody_can_use(bundle, change, told):
    save(bundle, change)
    (fault,) = faults(bundle)
    assert "models/model.pt: " in fault and told in fault


@pytest.mark.parametrize("name", WEIGHTS)
def test_files_that_are_no_weights(bundle, name):
    (bundle / name).write_bytes(b"none")
    (fault,) = faults(bundle)
    assert f"{name}: cannot be loaded" in fault


def test_a_zip_depends_on_its_content_alone(bundle, tmp_path):
    (bundle / "data").mkdir()
    (bundle / "data/patient.nii.gz").write_bytes(b"private")
    (bundle / "models/model.onnx").write_bytes(b"made by make export")
    (bundle / "models/.export-1").mkdir()
    (bundle / "models/.export-1/model.ts").write_bytes(b"of an export that was stopped")
    (bundle / "docs/.env").write_text("private")
    (bundle / "docs/linked.png").symlink_to(__file__)  # which faults() names
    (bundle / "models/checkpoint_10.pt").write_bytes(b"of a training")
    (bundle / "configs/train.json.orig").write_text("{}")
    (bundle / "patient.png").write_bytes(b"private")
    names = [path.relative_to(bundle).as_posix() for path in left_out(bundle)]
    assert names == [
        "configs/train.json.orig", "docs/.env", "docs/linked.png", "models/.export-1/model.ts",
        "models/checkpoint_10.pt", "patient.png",
    ]  # fmt: skip
    first = pack(bundle, tmp_path / "first", None)
    for path in bundle.rglob("*"):
        os.utime(path, (1, 1))
    second = pack(bundle, tmp_path / "second", None)
    assert first.name == second.name == "lung_ct_segmentation_v0.1.0.zip"
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        assert archive.read(f"{SMALL.name}/models/model.pt") == (SMALL / "models/model.pt").read_bytes()
    assert {f"{SMALL.name}/{name}" for name in NEEDED} < set(names)
    assert not [
        name
        for name in names
        if any(part in name for part in ("data/", ".onnx", "/.", "linked", "orig", "_10", "patient"))
    ]


def test_an_encoder_is_hosted_with_the_networks(tmp_path):
    bundle = ROOT / "bundles/optic_disc_fundus_segmentation"
    archive = pack(bundle, tmp_path, "https://example.org")
    names = ["localizer.pt", "model.pt", "model.pt2", "model.ts"]
    assert sorted(path.name for path in (tmp_path / "hosted" / archive.stem).iterdir()) == names
    with zipfile.ZipFile(archive) as packed:
        assert not [name for name in packed.namelist() if "/models/" in name]
        listed = yaml.safe_load(packed.read(f"{bundle.name}/large_files.yml"))["large_files"]
    assert [entry["path"] for entry in listed] == [f"models/{name}" for name in names]
    assert all(entry["hash_val"] == compute_sha256(bundle / entry["path"]) for entry in listed)


def test_weights_of_one_file_name_would_have_one_address(bundle):
    (bundle / "models/site").mkdir()
    shutil.copy(bundle / "models/model.pt", bundle / "models/site/model.pt")
    (bundle / "configs/site.json").write_text(json.dumps({"ckpt_path": "models/site/model.pt"}))
    assert list(faults(bundle)) == []
    (fault,) = faults(bundle, "https://example.org")
    assert f"{bundle}: models/model.pt, models/site/model.pt would have the same address" in fault


def test_a_further_script_that_a_config_names(bundle):
    (bundle / "configs/other.json").write_text(json.dumps({"script": "models/other.ts"}))
    (missing,) = faults(bundle)
    assert missing.startswith(f"{bundle}/models/other.ts: ") and "take its name out of the configs" in missing
    shutil.copy(bundle / "models/model.pt", bundle / "models/other.ts")  # a state dict, which is no TorchScript
    (wrong,) = faults(bundle)
    assert (
        wrong.startswith(f"{bundle}/models/other.ts: cannot be loaded") and "expected a network as TorchScript" in wrong
    )
    shutil.copy(bundle / "models/model.ts", bundle / "models/other.ts")
    assert list(faults(bundle)) == []


@pytest.mark.parametrize("key", VERSIONS)
def test_a_version_that_is_none(bundle, key):
    change_metadata(bundle, **{key: "any"})
    fault, *embedded = faults(bundle)
    assert f"metadata.json: {key} is 'any'; expected a version such as 1.2.3" in fault and all(
        "or another one than configs" in fault for fault in embedded
    )


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def host(tmp_path):
    """The URL of a server of tmp_path/output/hosted."""
    folder = tmp_path / "output/hosted"
    folder.mkdir(parents=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetch(bundle: Path) -> subprocess.CompletedProcess:
    command = ["-m", "monai.bundle", "download_large_files", "--bundle_path", bundle]
    return commands.run(*command, cwd=bundle, env={**os.environ, "no_proxy": "127.0.0.1"})


def test_hosted_weights_come_back_and_only_the_right_ones(host, tmp_path):
    archive = pack(SMALL, tmp_path / "output", host)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    unpacked = tmp_path / SMALL.name
    assert not (unpacked / "models").exists()
    done = fetch(unpacked)
    assert done.returncode == 0, done.stderr
    for name in WEIGHTS:
        assert (unpacked / name).read_bytes() == (SMALL / name).read_bytes()

    shutil.rmtree(unpacked / "models")
    (tmp_path / "output/hosted" / archive.stem / "model.pt").write_bytes(b"other weights")
    done = fetch(unpacked)
    assert done.returncode != 0 and "sha256" in done.stderr.lower()


def run(*words: object) -> subprocess.CompletedProcess:
    return commands.run("-m", "tools.zoo", *words, cwd=ROOT)


def test_a_bundle_that_does_not_exist_is_named():
    done = run("lungs")
    assert done.returncode == 2 and "there is no bundle lungs; expected some of brain_tumor" in done.stderr


@pytest.mark.parametrize("host", ["", "example"])
def test_a_host_that_is_no_url(host):
    done = run("--host", host)
    assert done.returncode == 2 and "is not a URL; expected one such as https://" in done.stderr


@pytest.mark.parametrize("name", ["out", "out/zoo", "x" * 300])
def test_an_output_that_cannot_be_a_folder_is_named(tmp_path, name):
    (tmp_path / "out").touch()
    done = run("--output", tmp_path / name)
    assert done.returncode == 2 and f"{tmp_path / name}: cannot be created or written" in done.stderr


def test_an_acceptance_without_a_trial_is_refused():
    done = run("--no_trial", "--acceptance", "check.py")
    assert done.returncode == 2 and "--acceptance is part of the trial; remove --no_trial" in done.stderr


def test_a_bundle_that_is_named_twice_is_packed_once(tmp_path):
    done = run(SMALL.name, SMALL.name, "--no_trial", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["SHA256SUMS", "lung_ct_segmentation_v0.1.0.zip", "unet_bundles-0.1.0-py3-none-any.whl"]
    with zipfile.ZipFile(tmp_path / names[1]) as packed:
        inner = [name.removeprefix(f"{SMALL.name}/") for name in sorted(packed.namelist())]
    assert f"{SMALL.name}: {len(inner)} files: " in done.stdout and all(name in done.stdout for name in inner)


@pytest.mark.slow
def test_a_zip_works_where_only_the_wheel_is_installed(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys, pathlib, unet_ode\n"
        "assert 'site-packages' in unet_ode.__file__, unet_ode.__file__\n"
        "assert sys.argv[1] == '--strict'\n"
        "assert pathlib.Path(sys.argv[2], 'configs/inference.json').exists()\n"
        f"assert not pathlib.Path(sys.argv[2]).is_relative_to({str(ROOT)!r})\n"
    )
    done = run(
        SMALL.name, "--output", tmp_path / "zoo", "--host", "https://example.org/w", "--acceptance", f"{probe} --strict"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    listed = dict(line.split("  ")[::-1] for line in (tmp_path / "zoo/SHA256SUMS").read_text().splitlines())
    assert len(listed) == 2
    for name, value in listed.items():
        assert hashlib.sha256((tmp_path / "zoo" / name).read_bytes()).hexdigest() == value
    done = run("membrane_em_segmentation", "--output", tmp_path / "zoo", "--no_trial")
    assert done.returncode == 0, done.stdout + done.stderr
    both = dict(line.split("  ")[::-1] for line in (tmp_path / "zoo/SHA256SUMS").read_text().splitlines())
    assert listed.items() < both.items() and len(both) == 3  # the wheel, built again, is the same
    probe.write_text("raise SystemExit('not accepted')\n")
    names = {path.name for path in (tmp_path / "zoo").iterdir()}
    done = run(SMALL.name, "--output", tmp_path / "zoo", "--acceptance", probe)
    assert done.returncode == 1 and "not accepted" in done.stderr
    assert f"failed, and not written: {SMALL.name}_v0.1.0.zip" in done.stderr
    assert {path.name for path in (tmp_path / "zoo").iterdir()} == names  # those of before
    done = run(SMALL.name, "--output", tmp_path / "failed", "--acceptance", probe)
    assert SMALL.name not in (tmp_path / "failed/SHA256SUMS").read_text()
