"""Zips of bundles, the same for the same input, and their check sums."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import yaml

from bundlekit.files import compute_sha256, write_atomically
from tools.bundle_folder import read_config
from tools.zoo.contents import files_of, weights_of

BIRTH = (1980, 1, 1, 0, 0, 0)  # of all files in a zip, so that it depends only on their content


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
