"""`edgeseg benchmark profile`: what it prints and writes, and that an export takes it. No rate is asserted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from edgeseg.bench import profile
from edgeseg.graph.profile import load_profile
from tests.cli.conftest import Edgeseg


@pytest.fixture(autouse=True)
def _small_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "measure_profile", partial(profile.measure_profile, map_mib=1))


def test_a_profile_is_printed_and_written(edgeseg: Edgeseg, tmp_path: Path) -> None:
    file = tmp_path / "out" / "my board.json"
    done = edgeseg("benchmark", "profile", file, "--threads", 2, "--seconds", 0)
    assert done.code == 0, done.err
    assert done.err.splitlines() == ["measuring with 1 thread ...", "measuring with 2 threads ..."]
    for word in ("dense_3x3", "dense_1x1", "bandwidth", "1 thread(s)", "2 thread(s)", "machine:"):
        assert word in done.out
    assert done.out.rstrip().endswith(f"edgeseg export NAME --machine-profile '{file}'")
    assert load_profile(file).name.endswith(", 2 threads")


def test_quiet_prints_nothing_and_the_name_is_kept(edgeseg: Edgeseg, tmp_path: Path) -> None:
    words = ("--threads", 1, "--seconds", 0, "--name", "board", "--quiet")
    done = edgeseg("benchmark", "profile", tmp_path / "a.json", *words)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert load_profile(tmp_path / "a.json").name == "board"
    taken = json.loads((tmp_path / "a.json").read_text())["measurements"]
    assert [entry["threads"] for entry in taken] == [1]


def test_a_place_that_cannot_be_written_is_one_sentence(edgeseg: Edgeseg, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = edgeseg("benchmark", "profile", tmp_path / "file" / "a.json", "--threads", 1, "--seconds", 0)
    assert done.code == 8
    assert str(tmp_path / "file") in done.sentence
