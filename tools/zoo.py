"""Pack bundles for MONAI's model zoo, and try each one where nothing but the wheel of the packages is installed.

    python tools/zoo.py [BUNDLE ...] [--output dist/zoo] [--host URL] [--acceptance PROGRAM ...] [--no_trial]

Writes OUTPUT/BUNDLE_vVERSION.zip and the wheel and, once the trials have passed, SHA256SUMS of all zips and wheels in
OUTPUT. With --host the weights stay out of the zip: they go to OUTPUT/hosted/BUNDLE_vVERSION/, to be put under URL by
hand, and large_files.yml in the zip says where they are and what their SHA-256 is, for `python -m monai.bundle
download_large_files`; the trial takes them from OUTPUT/hosted. The same input gives the same zip and wheel.

Before it is packed, a bundle must have all that the zoo asks for; what is missing is told at once. In the trial each
zip is unpacked outside of the repository, with an environment of its own: it finds the weights, checks the network
against metadata.json, and segments phantoms. --acceptance runs a further program of yours there, with the bundle's
folder behind its words. Exit code 1 where anything fails.
"""

from __future__ import annotations

import argparse
import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

from bundlekit.training import write_atomically

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ("models/model.pt", "models/model.ts")  # that every bundle has
NEEDED = (
    "LICENSE",
    "docs/README.md",
    "configs/metadata.json",
    "configs/inference.json",
    "configs/train.json",
    *WEIGHTS,
)
PACKED = ("LICENSE", "configs", "docs", "models", "scripts")
LARGEST_MB = 25
BIRTH = (1980, 1, 1, 0, 0, 0)  # of all files in a zip, so that it depends on their content alone
BIRTH_S = "315532800"  # the same, since 1970


def read_distribution() -> tuple[str, str]:
    """Name and version of the packages."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return settings["metadata"]["name"], settings["metadata"]["version"]


def read_metadata(bundle: Path) -> dict:
    path = bundle / "configs/metadata.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SystemExit(f"{path}: cannot be read ({error}); expected an object of JSON; correct it") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def faults(bundle: Path, host: str | None = None) -> Iterator[str]:
    """What the zoo would send back; weights that are hosted elsewhere may be of any size."""
    missing = [name for name in NEEDED if not (bundle / name).is_file() or not (bundle / name).stat().st_size]
    yield from (f"{bundle / name}: is missing or empty; expected in every bundle" for name in missing)
    if missing:
        return
    metadata, (name, version) = read_metadata(bundle), read_distribution()
    own = str(metadata.get("version"))
    if not re.fullmatch(r"\d+\.\d+\.\d+", own) or own not in metadata.get("changelog", {}):
        yield f"{bundle.name}: version is {own}; expected x.y.z with an entry in changelog"
    required = metadata.get("required_packages_version", {}).get(name)
    if required != version:
        yield f"{bundle.name}: required_packages_version has {name} {required}; expected {version}, as in setup.cfg"
    hosted = [bundle / name for name in weights_of(bundle) if host is not None]
    for path in files_of(bundle):
        if path not in hosted and path.stat().st_size > LARGEST_MB * 10**6:
            yield f"{path}: has {path.stat().st_size / 10**6:.1f} MB; expected {LARGEST_MB} at most: pass --host"
    saved = torch.load(bundle / WEIGHTS[0], map_location="cpu", weights_only=True)
    scripted = torch.jit.load(bundle / WEIGHTS[1], map_location="cpu").state_dict()
    if saved.keys() != scripted.keys() or not all(torch.equal(saved[key], scripted[key]) for key in saved):
        yield f"{bundle / WEIGHTS[1]}: holds other weights than model.pt; run make export BUNDLE={bundle.name}"


def files_of(bundle: Path) -> list[Path]:
    """What goes into the zip, in order."""
    places = [bundle / name for name in PACKED]
    found = [path for place in places for path in ([place] if place.is_file() else place.rglob("*")) if path.is_file()]
    own = [path for path in found if not path.is_symlink() and path.suffix != ".onnx"]
    hidden = ("__pycache__", ".")  # as what an export that was stopped leaves behind
    return sorted(path for path in own if not any(part.startswith(hidden) for part in path.relative_to(bundle).parts))


def weights_of(bundle: Path) -> list[str]:
    """Those of the network and any other, as of an encoder."""
    return [f"models/{path.name}" for path in files_of(bundle) if path.parent.name == "models"]


def large_files(bundle: Path, url: str) -> str:
    """The text of large_files.yml."""
    entries = [
        {"path": name, "url": f"{url}/{Path(name).name}", "hash_val": sha256(bundle / name), "hash_type": "sha256"}
        for name in weights_of(bundle)
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False)


def pack(bundle: Path, output: Path, host: str | None) -> Path:
    """Write the zip; its one folder is the bundle."""
    stem = f"{bundle.name}_v{read_metadata(bundle)['version']}"
    content = {str(path.relative_to(bundle)): path.read_bytes() for path in files_of(bundle)}
    if host is not None:
        hosted = output / "hosted" / stem
        hosted.mkdir(parents=True, exist_ok=True)
        for name in weights_of(bundle):
            (hosted / Path(name).name).write_bytes(content.pop(name))
        content["large_files.yml"] = large_files(bundle, f"{host.rstrip('/')}/{stem}").encode()

    def write(name: str) -> None:
        with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
            for inner, data in sorted(content.items()):
                info = zipfile.ZipInfo(f"{bundle.name}/{inner}", BIRTH)
                info.external_attr = 0o644 << 16
                archive.writestr(info, data, zipfile.ZIP_DEFLATED)

    path = output / f"{stem}.zip"
    write_atomically(path, write)
    return path


def call(folder: Path, *words: object, **more: str) -> None:
    """Run a command in a folder that is not the repository's, without its packages in sight; stop if it fails."""
    command = list(map(str, words))
    print(f"$ {' '.join(command)}", flush=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**kept, **more}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout}\nthe command above failed with exit code {done.returncode}")


def build_wheel(output: Path) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")  # building leaves folders behind
        shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "bundles", "runs", "dist", "tests", "build"))
        words = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
        call(source, sys.executable, *words, SOURCE_DATE_EPOCH=BIRTH_S)
        (wheel,) = Path(folder).glob("*.whl")
        return Path(shutil.copy(wheel, output))


def make_environment(folder: Path, wheel: Path) -> Path:
    """The Python of a new environment that holds the wheel, what it requires, and nothing else."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    call(folder, python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    return python


def try_out(archive: Path, python: Path, acceptance: list[str]) -> None:
    """Use the bundle as somebody would who has the zip and the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        (bundle,) = Path(folder).iterdir()
        run = (python, "-m", "monai.bundle")
        listed = bundle / "large_files.yml"
        if listed.exists():  # as if it were at its URL already
            entries = yaml.safe_load(listed.read_text())["large_files"]
            for entry in entries:
                entry["url"] = (archive.parent / "hosted" / archive.stem / Path(entry["path"]).name).as_uri()
            listed.write_text(yaml.safe_dump({"large_files": entries}))
            call(bundle, *run, "download_large_files", "--bundle_path", bundle)
        files = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")
        call(bundle, *run, "verify_net_in_out", "network_def", *files)
        data, results = Path(folder, "phantoms"), Path(folder, "results")
        call(bundle, python, "-m", "bundlekit.phantoms", bundle.name, data)
        call(
            bundle,
            *run,
            "run",
            "--config_file",
            "configs/inference.json",
            "--dataset_dir",
            data,
            "--output_dir",
            results,
        )
        wanted = len(json.loads((data / "dataset.json").read_text())["test"])
        found = len(list(results.glob("*_seg.*")))
        if found != wanted:
            raise SystemExit(f"{archive}: segmented {found} of {wanted} phantoms")
        if acceptance:
            call(Path(folder), python, *acceptance, bundle)
    print(f"{archive.name}: works", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.parent.name for path in (ROOT / "bundles").glob("*/configs"))
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--output", type=Path, default=ROOT / "dist/zoo")
    parser.add_argument("--host", metavar="URL", help="where you put the folders of OUTPUT/hosted/")
    parser.add_argument("--acceptance", nargs="+", default=[], metavar="WORD", help="program and its options")
    parser.add_argument("--no_trial", action="store_true", help="pack only")
    args = parser.parse_args()
    if unknown := set(args.bundles) - set(known):
        parser.error(f"there is no bundle {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    bundles = [ROOT / "bundles" / name for name in args.bundles or known]
    if wrong := [fault for bundle in bundles for fault in faults(bundle, args.host)]:
        raise SystemExit("\n".join(wrong))
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    archives = [pack(bundle, output, args.host) for bundle in bundles]
    wheel = build_wheel(output)
    if not args.no_trial:
        acceptance = [str(Path(word).resolve()) if Path(word).exists() else word for word in args.acceptance]
        with tempfile.TemporaryDirectory() as folder:
            python = make_environment(Path(folder), wheel)
            for archive in archives:
                try_out(archive, python, acceptance)
    packed = sorted([*output.glob("*.zip"), *output.glob("*.whl")])
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in packed)
    write_atomically(output / "SHA256SUMS", lambda name: Path(name).write_text(sums))
    print(sums, end="")


if __name__ == "__main__":
    main()
