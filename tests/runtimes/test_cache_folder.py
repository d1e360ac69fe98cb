"""Folders of the caches: made for their owner alone, and refused where somebody else could have written into them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.runtimes.cache_folder import (
    DistrustedError,
    hash_private,
    keep_private,
    locked,
    make_private,
    read_private,
    refusal,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")

Read = Callable[[Path], object]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies on the disk belongs to somebody else."""
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o077])
def test_folders_and_files_are_the_owners_alone(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        make_private(tmp_path / "a" / "b")
        keep_private(tmp_path / "a" / "b" / "file", b"data")
    finally:
        os.umask(before)
    assert (_mode(tmp_path / "a"), _mode(tmp_path / "a" / "b")) == (0o700, 0o700)
    assert _mode(tmp_path / "a" / "b" / "file") == 0o600
    assert refusal(tmp_path / "a" / "b") == ""
    assert read_private(tmp_path / "a" / "b" / "file") == b"data"


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert _mode(tmp_path) == 0o755
    assert refusal(tmp_path) == ""


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    said = refusal(tmp_path)
    assert f"can be written by others (its mode is {mode:o}) and was not used" in said
    assert said.endswith("take that away with chmod go-w, or name another cache_dir")


@pytest.mark.usefixtures("another_user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path)
    assert f"belongs to another user (number {tmp_path.stat().st_uid}) and was not used" in said
    assert "chown" in said


def test_links_are_followed_to_a_folder_but_not_among_its_entries(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert refusal(tmp_path / "link") == ""
    assert "is a symbolic link and was not used; remove it" in refusal(tmp_path / "link", entry=True)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is no folder" in refusal(tmp_path / "file")


def test_a_folder_that_is_missing_is_not_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == ""


@pytest.mark.parametrize("read", [read_private, hash_private])
def test_files_that_must_not_be_used(tmp_path: Path, read: Read) -> None:
    keep_private(tmp_path / "file", b"data")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(DistrustedError, match=r"^is a symbolic link$"):
        read(tmp_path / "link")
    for name in (".", "pipe"):
        with pytest.raises(DistrustedError, match=r"^is no plain file$"):
            read(tmp_path / name)
    (tmp_path / "file").chmod(0o620)
    with pytest.raises(DistrustedError, match=r"^can be written by others \(its mode is 620\)$"):
        read(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


@pytest.mark.usefixtures("another_user")
@pytest.mark.parametrize("read", [read_private, hash_private])
def test_a_file_of_another_user_is_not_used(tmp_path: Path, read: Read) -> None:
    (tmp_path / "file").write_bytes(b"data")
    with pytest.raises(DistrustedError, match=r"^belongs to another user"):
        read(tmp_path / "file")


def test_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    keep_private(tmp_path / "file", data)
    assert hash_private(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
