"""Nothing half-written: crashes, full disks and refusals leave what was there."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.errors import StorageError, UsageError
from edgeseg.files import atomic_folder, sha256_of, write_bytes, write_text

ROOT = Path(__file__).resolve().parents[1]


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
    rename, calls = os.rename, []

    def interrupted(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("edgeseg.files.exchange._renameat2", lambda first, second: False)
    monkeypatch.setattr(os, "rename", interrupted)
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


# --- modes, names and what a killed process left


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


KILLED = """
import os, signal, sys
from pathlib import Path
from edgeseg.files import Partial, scratch_folder
target = Path(sys.argv[1])
file, folder = Partial(target / "f"), Partial(target / "made", folder=True)
file.path.write_text("half")
(folder.path / "half").write_text("half")
with scratch_folder("edgeseg-benchmark") as scratch:
    (scratch / "half").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="locks and signals are POSIX's")
def test_what_a_killed_process_left_goes_with_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(_names(tmp_path)) == 3
        _write_in_a_new_process(tmp_path / "other")  # the one that lives keeps its own
        assert len(_names(tmp_path)) == 4
        process.communicate("")
    assert process.returncode == -signal.SIGKILL
    assert len(_names(tmp_path)) == 4
    _write_in_a_new_process(tmp_path / "f")
    assert _names(tmp_path) == ["f", "other"]


def _write_in_a_new_process(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeseg.files import write_text; write_text(Path(sys.argv[1]), 'x')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)


def test_nothing_that_only_looks_like_ours_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".f.edgeseg-abcdefgh").symlink_to(outside)
    (folder / "f.edgeseg-abcdefgh").write_text("no dot")
    (folder / ".f.edgeseg-ABCDEFGH").write_text("other letters")
    (folder / ".f.edgeseg-aaaaaaaa").write_text("of somebody else")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    write_text(folder / "g", "x")
    assert len(_names(folder)) == 5
    assert (outside / "kept").is_file()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr("edgeseg.files.exchange._renameat2", lambda first, second: False)
    for text in ("old", "new", "newest"):
        with atomic_folder(tmp_path / "made") as folder:
            (folder / text).write_text(text)
        assert _names(tmp_path) == ["made"]
        assert _names(tmp_path / "made") == [text]


def test_a_kill_between_two_renames_loses_nothing(tmp_path: Path) -> None:
    """Where the system cannot exchange two paths: the old folder lies aside, the new one is not in its place yet."""
    (tmp_path / ".made.edgeseg-abcdefgh").mkdir()
    (tmp_path / ".made.edgeseg-abcdefgh.old").mkdir()
    (tmp_path / ".made.edgeseg-abcdefgh.old" / "old").write_text("old")
    write_text(tmp_path / "f", "x")
    assert _names(tmp_path) == ["f", "made"]
    assert _names(tmp_path / "made") == ["old"]


def test_what_must_not_be_replaced_is_not(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "photographs").write_text("x")

    def refuse(path: Path) -> None:
        raise UsageError(f"'{path}' is somebody's")

    with pytest.raises(UsageError, match="somebody's"), atomic_folder(tmp_path / "made", replaces=refuse) as folder:
        (folder / "a").write_text("1")
    assert _names(tmp_path / "made") == ["photographs"]
    assert _names(tmp_path) == ["made"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "\udcff" * 255, "a\nb", " "])
def test_long_and_odd_names(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert _names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
def test_names_that_cannot_be_are_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / name, "x")
    assert _names(tmp_path) == []
