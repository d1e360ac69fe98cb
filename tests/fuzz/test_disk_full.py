"""Disks that fill up at every moment: one sentence, code 8, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.bundle import open_bundle
from tests.runtimes.bundles import make_tiny_bundle, picture

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = 'mount -t tmpfs -o size=$1 none full && shift && "$@"; code=$?; cp -a full/. left/; umount full; exit $code'


def _can_mount() -> bool:
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_mount(), reason="needs Linux and the right to mount a file system of its own")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path)
    for name in ("frames", "full", "left"):
        (tmp_path / name).mkdir()
    for index in range(12):
        grain = np.random.default_rng(index).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), grain)
    video = cv2.VideoWriter(str(tmp_path / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (160, 120))
    for index in range(40):
        video.write(picture((120, 160), index))
    video.release()
    return tmp_path


def _run(place: Path, size: str, *words: str) -> tuple[int, str, list[Path]]:
    """Run a command with a disk of `size` at ``full``; exit code, standard error, and what is on the disk."""
    shutil.rmtree(place / "left")
    (place / "left").mkdir()
    command = ["unshare", "-m", "bash", "-c", SCRIPT, "bash", size, sys.executable, "-m", "edgeseg", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr, [path for path in (place / "left").rglob("*") if path.is_file()]


COMMANDS = {
    "predict": ("predict", "tiny.edgeseg", "frames", "--out", "full/out", "--overlay", "--labels", "--scores"),
    "video": ("predict", "tiny.edgeseg", "drive.mp4", "--out", "full/out", "--overlay"),
    "benchmark": ("benchmark", "tiny.edgeseg", "--seconds", "0.5", "--save", "full/report.json"),
    "export": ("export", "tests.export.networks:tiny", "--size", "32x48", "--out", "full"),
}
SIZES = {"predict": ("60k", "200k"), "video": ("8k", "20k"), "benchmark": ("4k",), "export": ("8k", "60k", "400k")}
SLOW = {"export"}
CASES = [
    pytest.param(name, size, marks=pytest.mark.slow if name in SLOW and size != "60k" else (), id=f"{name}-{size}")
    for name, sizes in SIZES.items()
    for size in sizes
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_full_disk(name: str, size: str, place: Path) -> None:
    code, err, left = _run(place, size, *COMMANDS[name])
    assert code == 8, err
    assert "disk is full" in err or "disk is probably full" in err
    assert "Traceback" not in err
    assert [path for path in left if path.name.startswith(".") or ".edgeseg-" in path.name] == []
    for path in left:
        if path.suffix == ".png":
            assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) is not None
        assert path.suffix != ".mp4"
    if name == "export":
        assert left == []


@pytest.mark.slow
def test_a_disk_that_is_large_enough(place: Path) -> None:
    code, err, _ = _run(place, "20m", *COMMANDS["export"])
    assert code == 0, err
    open_bundle(place / "left" / "tiny.edgeseg")
