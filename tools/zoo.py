"""Pack bundles for MONAI's model zoo, and test each zip in an environment with only the wheel of the packages.

    python -m tools.zoo [BUNDLE ...] [--output dist/zoo] [--host URL] [--acceptance "PROGRAM OPTIONS"] [--no_trial]

Writes OUTPUT/BUNDLE_vVERSION.zip for each bundle whose trial passes, the wheel, and SHA256SUMS of all zips and wheels
in OUTPUT. With --host the weights are not in the zip but in OUTPUT/hosted/BUNDLE_vVERSION/, to be uploaded to URL by
hand; large_files.yml in the zip has their addresses and SHA-256 for `python -m monai.bundle download_large_files`, and
the trial takes them from OUTPUT. The same input gives the same zip; the wheel is also the same if setuptools and the
file modes are.

A bundle must have the files and metadata that the zoo requires, weights of its network, and model.ts and model.pt2 with
the same output as the network; all faults are reported at once. In the trial each zip is unpacked outside of the
repository, with an environment of its own: the bundle loads the weights, checks the network against metadata.json,
segments phantoms, and trains one epoch with fit_demo.json. So bundlekit.phantoms has to know the bundle's name.
--acceptance also runs a program of yours there, with the bundle's folder as the last argument. If anything fails, the
exit code is 1; earlier zips of bundles whose trial fails are kept.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from monai.transforms import LoadImage

from bundlekit.errors import InputError, describe
from bundlekit.files import compute_sha256, require_file, require_writable_folder, write_atomically
from bundlekit.inputs.weights import check_weights
from tools.bundle_folder import TOLERANCE, image_shapes, largest_difference, load_network, read_config
from tools.formats import SHIPPED, open_exported

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ("models/model.pt", *(f"models/model.{ending}" for ending in SHIPPED))  # that every bundle has
INFERENCE = "configs/inference.json"
DEMO = "configs/fit_demo.json"
NEEDED = (
    "LICENSE",
    "docs/README.md",
    "docs/data_license.txt",
    "configs/metadata.json",
    INFERENCE,
    "configs/train.json",
    DEMO,
    *WEIGHTS,
)
SAID = (
    "name", "schema", "task", "description", "authors", "copyright",
    "monai_version", "pytorch_version", "numpy_version",
)  # fmt: skip
"""Texts that MONAI's schema of metadata.json demands, and the name."""

VERSIONS = ("monai_version", "pytorch_version", "numpy_version")

PACKED = (
    "LICENSE",
    *(f"configs/**/*.{ending}" for ending in ("json", "conf")),
    *(f"docs/**/*.{ending}" for ending in ("md", "txt", "csv", "png")),
    "scripts/**/*.py",
)
"""Patterns of the files in a zip; the weights that a config names are added."""

MADE = frozenset(("data", "eval", "__pycache__"))
"""Folders that a bundle's own programs fill."""

LARGEST_MB = 25
BIRTH = (1980, 1, 1, 0, 0, 0)  # of all files in a zip, so that it depends only on their content
BIRTH_S = "315532800"  # the same, since 1970


class Failed(SystemExit):
    """A command that failed, or gave too little."""


def read_distribution() -> tuple[str, str]:
    """Name and version of the packages."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return settings["metadata"]["name"], settings["metadata"]["version"]


def faults(bundle: Path, host: str | None = None) -> Iterator[str]:
    """What the zoo would send back; weights that are hosted elsewhere may be of any size."""
    missing = [name for name in NEEDED if not (bundle / name).is_file() or not (bundle / name).stat().st_size]
    yield from (f"{bundle / name}: is missing or empty; expected in every bundle; add it" for name in missing)
    links = [path for path in sorted(bundle.rglob("*")) if path.is_symlink() and not is_left_out(path, bundle)]
    yield from (f"{path}: is a link; expected the file or folder itself; copy it there" for path in links)
    if missing or links:
        return
    config = bundle / "configs/metadata.json"
    try:
        for path in configs_of(bundle):
            read_config(path)
        metadata, (name, version) = read_config(config), read_distribution()
        own, changelog, required = (metadata.get(k) for k in ("version", "changelog", "required_packages_version"))
        entry = changelog.get(str(own)) if isinstance(changelog, dict) else None
        if not (re.fullmatch(r"\d+\.\d+\.\d+", str(own)) and isinstance(entry, str) and entry.strip()):
            yield f"{config}: version is {own}; expected x.y.z with an entry in changelog; add it"
        unsaid = [key for key in SAID if not (isinstance(metadata.get(key), str) and metadata[key].strip())]
        if unsaid:
            yield f"{config}: has no text for {', '.join(unsaid)}; expected one for each; add it"
        for key in (key for key in VERSIONS if key not in unsaid):
            if not re.fullmatch(r"\d+(\.\d+)+\S*", metadata[key]):
                yield f"{config}: {key} is {metadata[key]!r}; expected a version such as 1.2.3; correct it"
        found = required.get(name) if isinstance(required, dict) else required
        if found != version:
            yield f"{config}: required_packages_version has {name} {found}; expected {version}, as in setup.cfg; set it"
        hosted = [bundle / name for name in weights_of(bundle) if host is not None]
        doubled = [path for path in hosted if [other.name for other in hosted].count(path.name) > 1]
        if doubled:
            names = ", ".join(str(path.relative_to(bundle)) for path in doubled)
            yield f"{bundle}: {names} would have the same address; expected unique names; rename all but one"
        for path in files_of(bundle):
            if path not in hosted and path.stat().st_size > LARGEST_MB * 10**6:
                remedy = "pass --host" if path.parent == bundle / "models" else "make it smaller"
                yield f"{path}: has {path.stat().st_size / 10**6:.1f} MB; expected at most {LARGEST_MB}; {remedy}"
        yield from faults_of_weights(bundle, metadata)
    except InputError as error:
        yield str(error)


def faults_of_weights(bundle: Path, metadata: dict) -> Iterator[str]:
    """Faults of files that cannot be read, and of a model.pt whose weights are not the network's or not finite."""
    ckpt, *exported = (bundle / name for name in WEIGHTS)
    for name in named_weights(bundle):
        check_named(bundle / name)
    network = load_network(bundle)
    saved, own = torch.load(ckpt, map_location="cpu", weights_only=True), network.state_dict()
    for key, value in saved.items():
        if value.dtype != own[key].dtype or not value.isfinite().all():
            found = f"of {value.dtype}" if value.isfinite().all() else "not finite"
            yield f"{ckpt}: {key} is {found}; expected finite values of {own[key].dtype}; train and save it again"
            return
    configs = {"metadata.json": metadata, "inference.json": read_config(bundle / INFERENCE)}
    remedy = f"run make export BUNDLE={bundle.name}, unless model.pt or configs/ are at fault"
    for path in exported:
        for found, expected in faults_of_exported(path, network, image_shapes(bundle, network), configs):
            yield f"{path}: {found}; expected {expected}; {remedy}"


def faults_of_exported(
    path: Path, network: torch.nn.Module, shapes: list[tuple[int, ...]], configs: dict[str, dict]
) -> Iterator[tuple[str, str]]:
    """What an exported file is and what it should be: the same function, with the same weights and configs."""
    try:
        exported = open_exported(path)
        off = largest_difference(exported.network, network, shapes)
    except Exception as error:  # torch.jit.Error is nothing but an Exception
        cause = error.__cause__ or error
        yield f"cannot be loaded and run ({describe(cause)})", "the network as it was exported"
        return
    saved, state = network.state_dict(), exported.state_dict
    kinds = [{key: (value.dtype, value.shape) for key, value in weights.items()} for weights in (saved, state)]
    if kinds[0] != kinds[1] or not all(torch.equal(saved[key], state[key]) for key in saved):
        yield "has other weights than model.pt", "the same weights"
    elif not off <= TOLERANCE:
        yield f"differs from the network of inference.json by {off:.1e} of the largest output", f"at most {TOLERANCE:g}"
    for name, config in configs.items():
        try:
            same = json.loads(exported.configs[name]) == config
        except ValueError:
            same = False
        if not same:
            yield f"has no {name}, or another one than configs/", f"the {name} of configs/"


def check_named(path: Path) -> None:
    """A config names it, so it has to be a state dict, or an exported network where its ending says so."""
    if path.suffix == ".pt":
        check_weights(path)
        return
    require_file(path, "export it, or take its name out of the configs")
    open_exported(path)


def is_left_out(path: Path, bundle: Path) -> bool:
    """Hidden, as what an export that was stopped leaves behind, or made by the bundle's own programs."""
    parts = path.relative_to(bundle).parts
    return any(part.startswith(".") for part in parts) or bool(MADE.intersection(parts))


def configs_of(bundle: Path) -> list[Path]:
    return [path for path in sorted(bundle.glob("configs/**/*.json")) if not is_left_out(path, bundle)]


def named_weights(bundle: Path) -> list[str]:
    """Files in models/ that a config names, except WEIGHTS."""
    texts = "".join(path.read_text(encoding="utf-8") for path in configs_of(bundle))
    return sorted(set(re.findall(r"models/[\w/.-]*\.(?:pt2?|ts)\b", texts)).difference(WEIGHTS))


def files_of(bundle: Path) -> list[Path]:
    """What goes into the zip, in order."""
    weights = {bundle / name for name in (*WEIGHTS, *named_weights(bundle))}
    found = {path for pattern in PACKED for path in bundle.glob(pattern)} | weights
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and not is_left_out(path, bundle))


def left_out(bundle: Path) -> list[Path]:
    """Files of a bundle that are not packed, except generated ones."""
    packed = files_of(bundle)
    found = [path for path in sorted(bundle.rglob("*")) if not path.is_dir() and path not in packed]
    made = [path for path in found if path.suffix == ".onnx" or MADE.intersection(path.relative_to(bundle).parts)]
    return [path for path in found if path not in made]


def weights_of(bundle: Path) -> list[str]:
    """Weights of the network and others, such as an encoder's."""
    names = [path.relative_to(bundle).as_posix() for path in files_of(bundle)]
    return [name for name in names if name.startswith("models/")]


def large_files(bundle: Path, url: str) -> str:
    """The text of large_files.yml."""
    entries = [
        {
            "path": name,
            "url": f"{url}/{Path(name).name}",
            "hash_val": compute_sha256(bundle / name),
            "hash_type": "sha256",
        }
        for name in weights_of(bundle)
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False)


def pack(bundle: Path, output: Path, host: str | None) -> Path:
    """Write the zip; its one folder is the bundle."""
    stem = f"{bundle.name}_v{read_config(bundle / 'configs/metadata.json')['version']}"
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
            run_clean(bundle, *run, "download_large_files", "--bundle_path", bundle)
        files = ("--meta_file", "configs/metadata.json", "--config_file", "configs/inference.json")
        run_clean(bundle, *run, "verify_net_in_out", "network_def", *files)
        data, results = Path(folder, "phantoms"), Path(folder, "results")
        run_clean(bundle, python, "-m", "bundlekit.phantoms", bundle.name, data)
        places = ("--dataset_dir", data, "--output_dir", results)
        run_clean(bundle, *run, "run", "--config_file", INFERENCE, *places)
        wanted = len(json.loads((data / "dataset.json").read_text())["test"])
        found = sorted(results.glob("*_seg.*"))
        if len(found) != wanted:
            raise Failed(f"{archive}: segmented {len(found)} of {wanted} phantoms")
        if not any(LoadImage(image_only=True)(path).any() for path in found):
            raise Failed(f"{archive}: found nothing in any of {wanted} phantoms")
        trained = Path(folder, "training")
        words = ("--dataset_dir", data, "--output_dir", trained, "--ckpt_path", trained / "model.pt")
        shortest = ("--max_epochs", "1", "--val_interval", "1")
        run_clean(bundle, *run, "run", "--config_file", f"['configs/train.json', '{DEMO}']", *words, *shortest)
        if not (trained / "model.pt").exists():
            raise Failed(f"{archive}: a training of one epoch wrote no weights")
        if acceptance:
            run_clean(Path(folder), python, *acceptance, bundle)
    print(f"{archive.name}: works", flush=True)


def keep(stem: str, made: Path, output: Path) -> None:
    """Move a zip whose trial has passed, and its weights where they are hosted, to their places."""
    weights, place = made / "hosted" / stem, output / "hosted" / stem
    if weights.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        weights.replace(place)
    (made / f"{stem}.zip").replace(output / f"{stem}.zip")


def list_sums(output: Path) -> str:
    """Write SHA256SUMS of what lies there."""
    packed = sorted([*output.glob("*.zip"), *output.glob("*.whl")])
    sums = "".join(f"{compute_sha256(path)}  {path.name}\n" for path in packed)
    write_atomically(output / "SHA256SUMS", lambda name: Path(name).write_text(sums))
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.parent.name for path in (ROOT / "bundles").glob("*/configs"))
    parser.add_argument(
        "bundles",
        nargs="*",
        metavar="BUNDLE",
        type=lambda word: Path(word).name,
        help=f"of {', '.join(known)}; all by default",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dist/zoo")
    parser.add_argument("--host", metavar="URL", help="where the folders of OUTPUT/hosted/ will be uploaded")
    parser.add_argument("--acceptance", type=shlex.split, default=[], help="program and its options, in quotes")
    parser.add_argument("--no_trial", action="store_true", help="pack only")
    args = parser.parse_args()
    if unknown := set(args.bundles) - set(known):
        parser.error(f"there is no bundle {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    if args.host is not None and not re.match(r"\w+://.", args.host):
        parser.error(f"--host {args.host!r}: is not a URL; expected one such as https://example.org/weights")
    if args.no_trial and args.acceptance:
        parser.error("--acceptance is part of the trial; remove --no_trial")
    output = args.output.resolve()
    try:
        require_writable_folder(output, "pass another one as --output")
    except InputError as error:
        parser.error(str(error))
    bundles = [ROOT / "bundles" / name for name in dict.fromkeys(args.bundles or known)]
    if wrong := [fault for bundle in bundles for fault in faults(bundle, args.host)]:
        raise SystemExit("\n".join(wrong))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # ends what it has started and removes its folders
    failed = []
    with tempfile.TemporaryDirectory(dir=output, prefix=".zoo-") as folder, tempfile.TemporaryDirectory() as elsewhere:
        made = Path(folder)
        for path in (path for bundle in bundles for path in left_out(bundle)):
            print(f"left out: {path}", flush=True)
        archives = []
        for bundle in bundles:
            archives.append(pack(bundle, made, args.host))
            names = [path.relative_to(bundle).as_posix() for path in files_of(bundle)]
            print(f"{bundle.name}: {len(names)} files: {', '.join(names)}", flush=True)
        wheel = build_wheel(made)
        if not args.no_trial:
            acceptance = [os.path.abspath(word) if os.path.exists(word) else word for word in args.acceptance]
            python = make_environment(Path(elsewhere), wheel)
        for archive in archives:
            try:
                if not args.no_trial:
                    try_out(archive, python, acceptance)
                keep(archive.stem, made, output)
                if wheel.exists():
                    wheel.replace(output / wheel.name)
                list_sums(output)
            except Failed as error:
                print(error, file=sys.stderr, flush=True)
                failed.append(archive.name)
    print(list_sums(output), end="")
    if failed:
        raise SystemExit(f"failed, and not written: {', '.join(failed)}")


if __name__ == "__main__":
    main()
