"""Nothing half-written: crashes, full disks and refusals leave what was there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgeseg.errors import StorageError
from edgeseg.files import atomic_folder, sha256_of, write_bytes, write_text


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    assert (tmp_path / "made" / "a").read_text() == "1"
    assert _names(tmp_path) == ["made"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_folder_leaves_nothing_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with atomic_folder(tmp_path / "made") as folder:
            (folder / "a").write_text("1")
            raise error

    with pytest.raises(error):
        interrupted()
    assert _names(tmp_path) == []


def test_atomic_folder_keeps_the_old_one_until_the_end(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "made") as folder:
            (folder / text).write_text(text)
    assert _names(tmp_path / "made") == ["new"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "made"):
        raise RuntimeError
    assert _names(tmp_path / "made") == ["new"]
    assert _names(tmp_path) == ["made"]


def test_interrupted_between_two_renames_the_old_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old").write_text("old")
    replace, calls = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "made") as folder:
        (folder / "new").write_text("new")
    assert _names(tmp_path / "made") == ["old"]
    assert _names(tmp_path) == ["made"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "f", "before")

    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="the disk is full; free space"):
        write_bytes(tmp_path / "f", b"after")
    assert _names(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "before"


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "f" / "below", "x")
    with pytest.raises(StorageError, match="cannot write"), atomic_folder(tmp_path / "f" / "below"):
        pass


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
