"""A folder takes the place of another in one step, or is put back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseg.files import atomic_folder
from tests.files.listing import names_in


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
    assert names_in(tmp_path / "made") == ["old"]
    assert names_in(tmp_path) == ["made"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr("edgeseg.files.exchange._renameat2", lambda first, second: False)
    for text in ("old", "new", "newest"):
        with atomic_folder(tmp_path / "made") as folder:
            (folder / text).write_text(text)
        assert names_in(tmp_path) == ["made"]
        assert names_in(tmp_path / "made") == [text]
