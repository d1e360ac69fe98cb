"""Files and folders appear whole or not at all; errors, full disks and refusals leave what was there."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from edgeseg.errors import StorageError, UsageError
from edgeseg.files import atomic_folder, scratch_folder, write_bytes, write_text
from tests.files.listing import names_in


def test_atomic_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "1"
    assert names_in(tmp_path) == ["made"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_folder_leaves_nothing_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with atomic_folder(tmp_path / "made") as folder:
            (folder / "a").write_text("1")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names_in(tmp_path) == []


def test_atomic_folder_keeps_the_old_one_until_the_end(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "made") as folder:
            (folder / text).write_text(text)
    assert names_in(tmp_path / "made") == ["new"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "made"):
        raise RuntimeError
    assert names_in(tmp_path / "made") == ["new"]
    assert names_in(tmp_path) == ["made"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "f", "before")

    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="the disk is full; free space"):
        write_bytes(tmp_path / "f", b"after")
    assert names_in(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "before"


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "f" / "below", "x")
    with pytest.raises(StorageError, match="cannot write"), atomic_folder(tmp_path / "f" / "below"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_the_umask_decides_the_modes(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "below" / "f", "x")
        with atomic_folder(tmp_path / "made") as folder:
            (folder / "a").write_text("1")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"below": 0o777 & ~mask, "made": 0o777 & ~mask, "f": 0o666 & ~mask, "a": 0o666 & ~mask}


def test_what_must_not_be_replaced_is_not(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "photographs").write_text("x")

    def refuse(path: Path) -> None:
        raise UsageError(f"'{path}' is somebody's")

    with pytest.raises(UsageError, match="somebody's"), atomic_folder(tmp_path / "made", replaces=refuse) as folder:
        (folder / "a").write_text("1")
    assert names_in(tmp_path / "made") == ["photographs"]
    assert names_in(tmp_path) == ["made"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "\udcff" * 255, "a\nb", " "])
def test_long_and_odd_names(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
def test_names_that_cannot_be_are_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / name, "x")
    assert names_in(tmp_path) == []


def test_no_place_for_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    with (
        pytest.raises(StorageError, match=r"no usable temporary directory found in \['/tmp'\]; set TMPDIR"),
        scratch_folder("edgeseg-test"),
    ):
        pass
