"""`edgeseg export --precision`: what is printed, what is refused, and that `verify` accepts the bundle."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Edgeseg
from tests.export.precision.pictures import write_pictures

TINY = "tests.export.networks:tiny"


def test_int8(edgeseg: Edgeseg, tmp_path: Path) -> None:
    calib = write_pictures(tmp_path / "calib", 6)
    words = ["--size", "32x48", "--precision", "int8", "--calib", calib, "--min-agreement", 0.9, "--force"]
    done = edgeseg("export", TINY, *words, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "5 calibration pictures, scored on 1 others" in done.out
    assert "labels equal to fp32" in done.out
    assert edgeseg("verify", tmp_path / "tiny.edgeseg").code == 0


def test_without_calibration_pictures(edgeseg: Edgeseg, tmp_path: Path) -> None:
    done = edgeseg("export", TINY, "--size", "32x48", "--precision", "int8", "--out", tmp_path)
    assert done.code == 2
    assert "give a folder of pictures" in done.sentence
    assert not list(tmp_path.iterdir())


def test_empty_folder(edgeseg: Edgeseg, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = edgeseg("export", TINY, "--size", "32x48", "--precision", "int8", "--calib", empty, "--out", tmp_path)
    assert done.code == 7
    assert "holds no images" in done.sentence
