"""The plan cache with a fake builder: built once, rebuilt when damaged or foreign, and usable without a folder."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from edgeseg.errors import StorageError
from edgeseg.runtimes.tensorrt import kept_file
from edgeseg.runtimes.tensorrt.plan_cache import CachedPlan, PlanKey, PlanRefusedError, default_folder, load_or_build
from tests.runtimes.processes import works_in

KEY = PlanKey("model", "Orin", "8.7", 8, 8 << 30, "tensorrt 10.3.0", "12.6", "f32")


@dataclass
class Builder:
    """Builds the same bytes each time and counts; `load` refuses bytes that start with ``refused``."""

    data: bytes = b"plan"
    built: int = 0

    def build(self) -> bytes:
        self.built += 1
        return self.data

    def load(self, plan: bytes) -> str:
        if plan.startswith(b"refused"):
            raise PlanRefusedError("another version")
        return plan.decode()

    def open(self, folder: Path, key: PlanKey = KEY) -> CachedPlan[str]:
        return load_or_build(key, folder, build=self.build, load=self.load)


def plan_file(folder: Path) -> Path:
    return folder / f"{KEY.digest()}.plan"


def test_built_once_and_described(tmp_path: Path) -> None:
    builder = Builder()
    first, second = builder.open(tmp_path / "plans"), builder.open(tmp_path / "plans")
    assert (first.engine, first.built, first.notes) == ("plan", True, ())
    assert (second.engine, second.built, second.notes) == ("plan", False, ())
    assert builder.built == 1
    facts = json.loads(plan_file(tmp_path / "plans").with_suffix(".json").read_text())
    assert facts["built_for"]["gpu"] == "Orin"


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey)])
def test_everything_in_the_key_counts(tmp_path: Path, name: str) -> None:
    builder = Builder()
    builder.open(tmp_path)
    builder.open(tmp_path, replace(KEY, **cast("dict[str, Any]", {name: "other"})))
    assert builder.built == 2


def test_a_damaged_plan_is_rebuilt_and_said(tmp_path: Path) -> None:
    builder = Builder()
    builder.open(tmp_path)
    plan_file(tmp_path).write_bytes(b"pla")
    again = builder.open(tmp_path)
    assert again.engine == "plan"
    assert "was damaged (its SHA-256 differs) and was rebuilt" in again.notes[0]
    assert builder.open(tmp_path).notes == ()


def test_a_plan_of_something_else_is_rebuilt_and_said(tmp_path: Path) -> None:
    builder, other = Builder(), Builder(b"other")
    foreign = replace(KEY, gpu="Xavier")
    other.open(tmp_path, foreign)
    for suffix in (".plan", ".json"):
        os.replace(tmp_path / f"{foreign.digest()}{suffix}", plan_file(tmp_path).with_suffix(suffix))
    again = builder.open(tmp_path)
    assert again.engine == "plan"
    assert "was built for something else and was rebuilt" in again.notes[0]


def test_a_plan_the_runtime_refuses_is_rebuilt_and_said(tmp_path: Path) -> None:
    bad = Builder(b"refused")
    with pytest.raises(PlanRefusedError):
        bad.open(tmp_path)
    lenient = load_or_build(KEY, tmp_path, build=bad.build, load=bytes.decode)
    assert lenient.engine == "refused"
    again = Builder().open(tmp_path)
    assert again.engine == "plan"
    assert "was refused (another version) and was rebuilt" in again.notes[0]


@pytest.mark.parametrize("description", [None, "no json", "[]"])
def test_a_plan_without_its_description_is_rebuilt_and_said(tmp_path: Path, description: str | None) -> None:
    builder = Builder()
    builder.open(tmp_path)
    file = plan_file(tmp_path).with_suffix(".json")
    file.unlink() if description is None else file.write_text(description)
    again = builder.open(tmp_path)
    assert again.built
    assert again.notes[0].endswith("was rebuilt")
    assert builder.open(tmp_path).built is False


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    builder = Builder()
    opened = builder.open(blocked / "plans")
    assert opened.engine == "plan"
    assert "built for this run only" in opened.notes[0]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_said_but_read(tmp_path: Path) -> None:
    builder = Builder()
    builder.open(tmp_path)
    tmp_path.chmod(0o500)
    try:
        assert builder.open(tmp_path).built is False
        opened = builder.open(tmp_path, replace(KEY, model="new"))
        assert "built for this run only" in opened.notes[0]
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StorageError(f"cannot write '{path}': the disk is full; free space or choose another folder")

    monkeypatch.setattr(kept_file, "keep_private", full)
    opened = Builder().open(tmp_path)
    assert opened.engine == "plan"
    assert "built for this run only" in opened.notes[0]
    assert "the disk is full" in opened.notes[0]


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_folder_and_plans_are_the_owners_alone(tmp_path: Path) -> None:
    Builder().open(tmp_path / "cache" / "plans")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {modes.pop("cache"), modes.pop("plans")} == {0o700}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_a_folder_others_may_write_is_not_used(tmp_path: Path) -> None:
    builder = Builder()
    builder.open(tmp_path)
    before = sorted(tmp_path.iterdir())
    tmp_path.chmod(0o777)
    again = builder.open(tmp_path, replace(KEY, model="new"))
    assert (again.engine, again.built, len(again.notes)) == ("plan", True, 1)
    assert "can be written by others (its mode is 777) and was not used; take that away with chmod" in again.notes[0]
    assert builder.open(tmp_path).built
    assert sorted(tmp_path.iterdir()) == before
    tmp_path.chmod(0o700)
    assert not builder.open(tmp_path).built


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_an_entry_others_may_write_is_rebuilt_and_said(tmp_path: Path, suffix: str) -> None:
    builder = Builder()
    builder.open(tmp_path)
    plan_file(tmp_path).with_suffix(suffix).chmod(0o664)
    again = builder.open(tmp_path)
    assert again.built
    assert "can be written by others (its mode is 664) and was rebuilt; keep others from writing" in again.notes[0]
    assert not builder.open(tmp_path).built


@pytest.mark.skipif(os.name != "posix", reason="modes and links are POSIX's")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    builder, folder = Builder(), tmp_path / "plans"
    builder.open(folder)
    plan_file(folder).rename(tmp_path / "elsewhere")
    plan_file(folder).symlink_to(tmp_path / "elsewhere")
    builder.data = b"new"
    again = builder.open(folder)
    assert again.engine == "new"
    assert "is a symbolic link and was rebuilt" in again.notes[0]
    assert (tmp_path / "elsewhere").read_bytes() == b"plan"


@pytest.mark.skipif(os.name != "posix", reason="owners are POSIX's")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    Builder().open(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    again = Builder(b"mine").open(tmp_path)
    assert again.engine == "mine"
    assert f"belongs to another user (number {own}) and was not used; give it to its user with chown" in again.notes[0]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        load_or_build(KEY, tmp_path, build=fails, load=bytes.decode)
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]
    assert Builder().open(tmp_path).notes == ()


def test_two_processes_build_once(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="without locks each process builds for itself")

    def use(work: Callable[[], None]) -> None:
        def build() -> bytes:
            work()
            return b"plan"

        load_or_build(KEY, tmp_path / "plans", build=build, load=bytes.decode)

    assert works_in(use, tmp_path / "marks") == 1


def test_default_folder_honours_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "edgeseg" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says: ignore it
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_folder() == Path("/home/somebody/.cache/edgeseg/plans")


def test_plans_that_were_not_used_for_longest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_file, "MOST_BYTES", 250)
    builder = Builder(b"p" * 100)
    keys = [replace(KEY, gpu=f"GPU {number}") for number in range(4)]
    for age, key in enumerate(keys[:2]):
        builder.open(tmp_path, key)
        os.utime(tmp_path / f"{key.digest()}.plan", (1000.0 + age, 1000.0 + age))
    builder.open(tmp_path, keys[0])  # used again, so that the second is the one that goes
    builder.open(tmp_path, keys[2])
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert left == {f"{key.digest()}{suffix}" for key in (keys[0], keys[2]) for suffix in (".plan", ".json")}
    builder.data = b"p" * 1000
    assert builder.open(tmp_path, keys[3]).notes == ()
    assert [path.stem for path in tmp_path.glob("*.plan")] == [keys[3].digest()]
    assert not builder.open(tmp_path, keys[3]).built
