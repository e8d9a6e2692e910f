"""Files and folders that cannot be opened or written; the reasons are the system's own words for errno."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bundlekit.errors import InputError
from bundlekit.files import require_file, require_writable_folder, write_atomically


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "cannot be opened (No such file or directory); expected a file"),
        ("folder.png", "cannot be opened (Is a directory); expected a file"),
        ("whole.png/a.png", "cannot be opened (Not a directory); expected a file"),
        ("dangling.png", "cannot be opened (No such file or directory); expected a file"),
        ("nul\0.png", "cannot be opened (embedded null byte); expected a file"),
        ("empty.png", "is empty (0 bytes); expected a file with content"),
    ],
)
def test_a_file_that_is_none(tmp_path, name, reason):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "whole.png").write_bytes(b"1")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError) as caught:
        require_file(f"{tmp_path}/{name}", "copy it again")
    assert str(caught.value) == f"{tmp_path}/{name}: {reason}; copy it again"
    require_file(tmp_path / "whole.png", "")


def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(b"1")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything, so that a refusal needs another user
        os.seteuid(65534)
    try:
        with pytest.raises(InputError) as caught:
            require_file(path, "ask its owner")
    finally:
        os.seteuid(user)
    assert str(caught.value) == f"{path}: cannot be opened (Permission denied); expected a file; ask its owner"


def test_a_folder_is_made_and_left_empty(tmp_path):
    require_writable_folder(tmp_path / "a b" / "é", "")
    assert list((tmp_path / "a b" / "é").iterdir()) == []


@pytest.mark.parametrize("below", ["file", "file/out"])
def test_a_folder_at_or_below_a_file(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        require_writable_folder(tmp_path / below, "pass another")
    reason = "File exists" if below == "file" else "Not a directory"
    expected = "expected a folder that this user may write"
    assert str(caught.value) == f"{tmp_path}/{below}: cannot be created or written ({reason}); {expected}; pass another"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc, which even root cannot write")
@pytest.mark.parametrize("path", ["/proc", "/proc/out"])
def test_a_folder_that_not_even_root_can_write(path):
    with pytest.raises(InputError, match=f"^{path}: cannot be created or written"):
        require_writable_folder(path, "pass another")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "weights.pt"
    write_atomically(path, lambda part: part.write_text("old"))

    def fail(name):
        Path(name).write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["weights.pt"]


def test_written_files_have_the_permissions_of_ordinary_files(tmp_path):
    (tmp_path / "plain").write_text("")
    write_atomically(tmp_path / "atomic", lambda part: part.write_text(""))
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert modes["plain"] == modes["atomic"]
