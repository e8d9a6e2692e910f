"""The trial of a zip in an environment with only the wheel of the packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import yaml
from monai.transforms import LoadImage

from tools.zoo.contents import DEMO, INFERENCE, ROOT

BIRTH_S = "315532800"  # of the files in the wheel, in seconds since 1970: as of those in the zips


class Failed(SystemExit):
    """A command that failed, or gave too little."""


def run_clean(folder: Path, *words: object, **more: str) -> None:
    """Run a command in a folder that is not the repository's, without its packages in sight; stop if it fails."""
    command = list(map(str, words))
    print(f"$ {' '.join(command)}", flush=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**kept, **more}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise Failed(f"{done.stdout}\nthe command above failed with exit code {done.returncode}")


def build_wheel(output: Path) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")  # building leaves folders behind
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "bundles", "runs", "dist", "tests", "build"))
        words = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
        run_clean(source, sys.executable, *words, SOURCE_DATE_EPOCH=BIRTH_S)
        (wheel,) = Path(folder).glob("*.whl")
        return Path(shutil.copy(wheel, output))


def make_environment(folder: Path, wheel: Path) -> Path:
    """The Python of a new environment that holds the wheel, what it requires, and nothing else."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    run_clean(folder, python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    return python


def try_out(archive: Path, python: Path, acceptance: list[str]) -> None:
    """Use the bundle as somebody would who has the zip and the wheel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        (bundle,) = folder.iterdir()
        download(archive, bundle, python)
        files = ("--meta_file", "configs/metadata.json", "--config_file", INFERENCE)
        run_clean(bundle, python, "-m", "monai.bundle", "verify_net_in_out", "network_def", *files)
        data = folder / "phantoms"
        run_clean(bundle, python, "-m", "bundlekit.phantoms", bundle.name, data)
        try_segmenting(archive, bundle, python, data, folder / "results")
        try_training(archive, bundle, python, data, folder / "training")
        if acceptance:
            run_clean(folder, python, *acceptance, bundle)
    print(f"{archive.name}: works", flush=True)


def download(archive: Path, bundle: Path, python: Path) -> None:
    """Get the weights that large_files.yml lists, as if they were at their URL already."""
    listed = bundle / "large_files.yml"
    if not listed.exists():
        return
    entries = yaml.safe_load(listed.read_text())["large_files"]
    for entry in entries:
        entry["url"] = (archive.parent / "hosted" / archive.stem / Path(entry["path"]).name).as_uri()
    listed.write_text(yaml.safe_dump({"large_files": entries}))
    run_clean(bundle, python, "-m", "monai.bundle", "download_large_files", "--bundle_path", bundle)


def try_segmenting(archive: Path, bundle: Path, python: Path, data: Path, results: Path) -> None:
    """Segment phantoms: each has a mask, and one mask at least is not empty."""
    run_config(bundle, python, INFERENCE, data, results)
    wanted = len(json.loads((data / "dataset.json").read_text())["test"])
    found = sorted(results.glob("*_seg.*"))
    if len(found) != wanted:
        raise Failed(f"{archive}: segmented {len(found)} of {wanted} phantoms")
    if not any(LoadImage(image_only=True)(path).any() for path in found):
        raise Failed(f"{archive}: found nothing in any of {wanted} phantoms")


def try_training(archive: Path, bundle: Path, python: Path, data: Path, trained: Path) -> None:
    """Train for one epoch, which writes weights."""
    ckpt, shortest = trained / "model.pt", ("--max_epochs", "1", "--val_interval", "1")
    run_config(bundle, python, f"['configs/train.json', '{DEMO}']", data, trained, "--ckpt_path", ckpt, *shortest)
    if not ckpt.exists():
        raise Failed(f"{archive}: a training of one epoch wrote no weights")


def run_config(bundle: Path, python: Path, config: str, data: Path, output: Path, *more: object) -> None:
    places = ("--dataset_dir", data, "--output_dir", output)
    run_clean(bundle, python, "-m", "monai.bundle", "run", "--config_file", config, *places, *more)
