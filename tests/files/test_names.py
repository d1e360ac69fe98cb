"""Temporary names lead back to the place they stand in for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseg.files.names import aside_of, is_temporary, place_of, temporary_path


@pytest.mark.parametrize("name", ["made", "a b", ".hidden", "x.edgeseg-abcdefgh", "\udcff"])
def test_a_temporary_name_is_recognised_and_leads_back(name: str) -> None:
    path = temporary_path(Path("out", name), "")
    assert is_temporary(path.name)
    assert is_temporary(aside_of(path).name)
    assert not is_temporary(name)
    assert place_of(path) == Path("out", name)


def test_a_long_name_is_cut_to_what_a_file_system_takes() -> None:
    path = temporary_path(Path("x" * 255), ".mp4")
    assert len(os.fsencode(aside_of(path).name)) <= 255
    assert is_temporary(path.name)
    assert path.suffix == ".mp4"
