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
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bundlekit.errors import InputError
from bundlekit.files import require_writable_folder
from tools.arguments import add_bundles, choose_bundles
from tools.zoo.contents import ROOT, files_of, left_out
from tools.zoo.faults import faults
from tools.zoo.packing import keep, list_sums, pack
from tools.zoo.trial import Failed, build_wheel, make_environment, try_out


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_bundles(parser)
    parser.add_argument("--output", type=Path, default=ROOT / "dist/zoo")
    parser.add_argument("--host", metavar="URL", help="where the folders of OUTPUT/hosted/ will be uploaded")
    parser.add_argument("--acceptance", type=shlex.split, default=[], help="program and its options, in quotes")
    parser.add_argument("--no_trial", action="store_true", help="pack only")
    args = parser.parse_args()
    args.bundles = choose_bundles(parser, args.bundles)
    if args.host is not None and not re.match(r"\w+://.", args.host):
        parser.error(f"--host {args.host!r}: is not a URL; expected one such as https://example.org/weights")
    if args.no_trial and args.acceptance:
        parser.error("--acceptance is part of the trial; remove --no_trial")
    args.output = args.output.resolve()
    try:
        require_writable_folder(args.output, "pass another one as --output")
    except InputError as error:
        parser.error(str(error))
    args.acceptance = [os.path.abspath(word) if os.path.exists(word) else word for word in args.acceptance]
    return args


def pack_all(bundles: Sequence[Path], made: Path, host: str | None) -> list[Path]:
    """Write the zips, and print what is in them and what is not."""
    for path in (path for bundle in bundles for path in left_out(bundle)):
        print(f"left out: {path}", flush=True)
    archives = []
    for bundle in bundles:
        archives.append(pack(bundle, made, host))
        names = [path.relative_to(bundle).as_posix() for path in files_of(bundle)]
        print(f"{bundle.name}: {len(names)} files: {', '.join(names)}", flush=True)
    return archives


def main() -> None:
    args = read_arguments()
    output: Path = args.output
    if wrong := [fault for bundle in args.bundles for fault in faults(bundle, args.host)]:
        raise SystemExit("\n".join(wrong))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # ends what it has started and removes its folders
    failed = []
    with tempfile.TemporaryDirectory(dir=output, prefix=".zoo-") as folder, tempfile.TemporaryDirectory() as elsewhere:
        made = Path(folder)
        archives, wheel = pack_all(args.bundles, made, args.host), build_wheel(made)
        python = None if args.no_trial else make_environment(Path(elsewhere), wheel)
        for archive in archives:
            try:
                if python is not None:
                    try_out(archive, python, args.acceptance)
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
