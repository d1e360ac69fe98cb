"""The guard of a cache that an engine keeps by itself, with an engine that trusts everything it finds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.errors import StorageError
from edgeseg.runtimes.openvino import blob_cache
from edgeseg.runtimes.openvino.blob_cache import guarded_blobs
from tests.runtimes.processes import works_in

KEY: dict[str, object] = {"model": "a", "config": {"threads": 1}}


def compile_with(root: Path, key: dict[str, object] = KEY, data: bytes = b"right") -> tuple[bytes, bool, list[str]]:
    """What the engine runs, whether it compiled it now, and what the user is told."""
    with guarded_blobs(key, root) as blobs:
        if blobs.folder is None:
            return data, True, blobs.notes
        blob = blobs.folder / "1.blob"
        if blob.exists():
            return blob.read_bytes(), False, blobs.notes
        blob.write_bytes(data)
        blob.chmod(0o440)
    return data, True, blobs.notes


def folder_of(root: Path) -> Path:
    (found,) = (path for path in root.iterdir() if path.is_dir())
    return found


def test_compiled_once(tmp_path: Path) -> None:
    assert compile_with(tmp_path / "a" / "cache") == (b"right", True, [])
    assert compile_with(tmp_path / "a" / "cache", data=b"unused") == (b"right", False, [])


def test_every_key_has_a_folder_of_its_own(tmp_path: Path) -> None:
    compile_with(tmp_path)
    assert compile_with(tmp_path, {**KEY, "model": "b"}, b"other") == (b"other", True, [])
    assert compile_with(tmp_path, {**KEY, "config": {"threads": 2}}, b"third") == (b"third", True, [])
    assert compile_with(tmp_path) == (b"right", False, [])


def _damage(folder: Path) -> None:
    (folder / "1.blob").chmod(0o600)
    (folder / "1.blob").write_bytes(b"wrong")


def _link(folder: Path) -> None:
    (folder / "1.blob").rename(folder.parent / "elsewhere")
    (folder / "1.blob").symlink_to(folder.parent / "elsewhere")


def _open(folder: Path) -> None:
    (folder / "1.blob").chmod(0o660)


def _folder(folder: Path) -> None:
    (folder / "1.blob").unlink()
    (folder / "1.blob" / "inside").mkdir(parents=True)


def _lost_index(folder: Path) -> None:
    folder.with_suffix(".json").unlink()


def _broken_index(folder: Path) -> None:
    folder.with_suffix(".json").write_text("[]")


def _foreign_index(folder: Path) -> None:
    index = folder.with_suffix(".json")
    index.write_text(json.dumps({**json.loads(index.read_text()), "built_for": {"model": "b"}}))


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX's")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_damage, "was damaged (its SHA-256 differs)"),
        (_link, "is a symbolic link"),
        (_open, "can be written by others (its mode is 660)"),
        (_folder, "is no plain file"),
        (_lost_index, "is not in the cache's index"),
        (_broken_index, "is not in the cache's index"),
        (_foreign_index, "is not in the cache's index"),
    ],
)
def test_what_differs_is_removed_and_said(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    compile_with(tmp_path)
    spoil(folder_of(tmp_path))
    value, compiled, notes = compile_with(tmp_path)
    assert (value, compiled, len(notes)) == (b"right", True, 1)
    assert notes[0].startswith("'1.blob' in the cache folder '")
    assert notes[0].endswith(f"{said}; it was removed and the graph compiled anew")
    assert compile_with(tmp_path) == (b"right", False, [])


def test_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    compile_with(tmp_path)
    _link(folder_of(tmp_path))
    (tmp_path / "elsewhere").chmod(0o600)
    (tmp_path / "elsewhere").write_bytes(b"somebody's")
    assert compile_with(tmp_path)[0] == b"right"
    assert (tmp_path / "elsewhere").read_bytes() == b"somebody's"


def test_only_what_differs_is_removed(tmp_path: Path) -> None:
    compile_with(tmp_path)
    (folder_of(tmp_path) / "2.blob").write_bytes(b"planted")
    value, compiled, notes = compile_with(tmp_path)
    assert (value, compiled) == (b"right", False)
    assert "'2.blob'" in notes[0]
    assert not (folder_of(tmp_path) / "2.blob").exists()


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX's")
def test_an_index_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    compile_with(tmp_path)
    folder_of(tmp_path).with_suffix(".json").chmod(0o666)
    value, compiled, notes = compile_with(tmp_path)
    assert (value, compiled) == (b"right", True)
    assert "can be written by others (its mode is 666) and was not used; keep others from writing" in notes[0]
    assert compile_with(tmp_path) == (b"right", False, [])


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX's")
def test_folders_that_others_may_write_are_not_used(tmp_path: Path) -> None:
    compile_with(tmp_path)
    folder = folder_of(tmp_path)
    for spoilt, whole in ((folder, 0o700), (tmp_path, 0o700)):
        spoilt.chmod(0o770)
        value, compiled, notes = compile_with(tmp_path, data=b"now")
        assert (value, compiled, len(notes)) == (b"now", True, 1)
        assert "can be written by others (its mode is 770) and was not used; take that away with chmod" in notes[0]
        spoilt.chmod(whole)
    assert compile_with(tmp_path) == (b"right", False, [])


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX's")
def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    compile_with(tmp_path / "cache")
    folder = folder_of(tmp_path / "cache")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    value, compiled, notes = compile_with(tmp_path / "cache", data=b"now")
    assert (value, compiled) == (b"now", True)
    assert "is a symbolic link and was not used; remove it" in notes[0]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for root in (tmp_path / "file", tmp_path / "file" / "cache"):
        value, compiled, notes = compile_with(root)
        assert (value, compiled, len(notes)) == (b"right", True, 1)
        assert notes[0].endswith("name another cache_dir")


def test_what_an_engine_wrote_anew_is_noted(tmp_path: Path) -> None:
    compile_with(tmp_path)
    with guarded_blobs(KEY, tmp_path) as blobs:  # an engine that does not like what it finds compiles by itself
        assert blobs.folder is not None
        (blobs.folder / "1.blob").unlink()
        (blobs.folder / "1.blob").write_bytes(b"other")
    assert compile_with(tmp_path) == (b"other", False, [])


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX's")
def test_a_generous_umask_does_no_harm(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with guarded_blobs(KEY, tmp_path) as blobs:
            assert blobs.folder is not None
            (blobs.folder / "1.blob").write_bytes(b"right")
        assert compile_with(tmp_path) == (b"right", False, [])
    finally:
        os.umask(before)


def test_an_engine_that_fails_leaves_nothing_to_trust(tmp_path: Path) -> None:
    def fails() -> None:
        with guarded_blobs(KEY, tmp_path) as blobs:
            assert blobs.folder is not None
            (blobs.folder / "1.blob").write_bytes(b"half")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fails()
    value, compiled, notes = compile_with(tmp_path)
    assert (value, compiled) == (b"right", True)
    assert "is not in the cache's index" in notes[0]


def test_an_engine_that_keeps_nothing_is_said(tmp_path: Path) -> None:
    with guarded_blobs(KEY, tmp_path) as blobs:
        pass
    assert "the engine kept nothing" in blobs.notes[0]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"cannot write '{path}': the disk is full; free space or choose another folder")

    monkeypatch.setattr(blob_cache, "keep_private", full)
    value, compiled, notes = compile_with(tmp_path)
    assert (value, compiled) == (b"right", True)
    assert "could not be kept and will be compiled again (cannot write" in notes[0]


def test_two_processes_compile_once(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="without locks each process compiles for itself")

    def use(work: Callable[[], None]) -> None:
        with guarded_blobs(KEY, tmp_path / "cache") as blobs:
            assert blobs.folder is not None
            if not (blobs.folder / "1.blob").exists():
                (blobs.folder / "1.blob").write_bytes(b"half")
                work()
                (blobs.folder / "1.blob").write_bytes(b"right")
        assert blobs.notes == []

    assert works_in(use, tmp_path / "marks") == 1
