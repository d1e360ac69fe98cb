"""Signals at random moments: the right code in time, and nothing left but what was whole before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.bundle import open_bundle
from tests.cli.processes import CODES, SAID, Command
from tests.runtimes.bundles import make_tiny_bundle, picture

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found by /proc")

LIMIT_S = 2.0
SUFFIXES = (".png", ".json")

COMMANDS: dict[str, tuple[str, ...]] = {
    "predict": ("predict", "tiny.edgeseg", "frames", "--out", "out", "--labels", "--overlay", "--scores"),
    "verify": ("verify", "tiny.edgeseg", "--images", "frames"),
    "eval": ("eval", "tiny.edgeseg", "--images", "frames", "--labels", "labels"),
    "benchmark": ("benchmark", "tiny.edgeseg", "--seconds", "1", "--save", "out/report.json"),
    "benchmark profile": ("benchmark", "profile", "out/profile.json", "--seconds", "1"),
    "export": ("export", "tests.export.networks:tiny", "--size", "32x48", "--out", "out", "-t", "ort", "openvino"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle, pictures and labels."""
    folder = tmp_path_factory.mktemp("signals")
    make_tiny_bundle(folder, targets=("ort", "openvino"))
    for name in ("frames", "labels"):
        (folder / name).mkdir()
    for index in range(60):
        cv2.imwrite(str(folder / "frames" / f"{index}.png"), picture((300, 400), index)[..., ::-1])
        cv2.imwrite(str(folder / "labels" / f"{index}.png"), np.zeros((300, 400), np.uint8))
    return folder


def _seconds(place: Path, name: str) -> float:
    """How long a command works that nobody disturbs."""
    command = Command(place, *COMMANDS[name])
    command.child()
    start = time.monotonic()
    out, err = command.process.communicate(timeout=120.0)
    assert command.process.returncode == 0, out + err
    return time.monotonic() - start


def _check(place: Path, name: str, number: int, after: float) -> int:
    shutil.rmtree(place / "out", ignore_errors=True)
    command = Command(place, *COMMANDS[name])
    command.child()
    time.sleep(after)
    code, err, seconds = command.end(number)
    told = f"{name}, {signal.Signals(number).name} after {after:.3f} s: code {code}, {seconds:.2f} s\n{err}"
    assert code in (0, CODES[signal.Signals(number)]), told
    assert "Traceback" not in err, told
    if code:
        assert err.endswith(SAID[code]), told
        assert err.count("edgeseg: ") == 1, told
        assert seconds < LIMIT_S, told
    assert command.left() == [], told
    written = [path for path in (place / "out").rglob("*") if path.is_file()] if (place / "out").exists() else []
    if name == "export":
        assert (code == 0) == bool(written), told
        if written:
            open_bundle(place / "out" / "tiny.edgeseg")
    for path in written:
        assert os.path.getsize(path) > 0, told
        if path.suffix == ".png":
            assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) is not None, told
    return code


def _attack(place: Path, name: str, hits: int, rng: random.Random) -> int:
    """Send signals until `hits` of them came before the command's end; those that came."""
    seconds = min(_seconds(place, name) for _ in range(3))
    found = 0
    for _ in range(4 * hits):
        found += _check(place, name, rng.choice(list(CODES)), rng.uniform(0.0, 0.9 * seconds)) != 0
        if found == hits:
            break
    return found


@pytest.mark.parametrize("name", ["predict"])
def test_a_few_signals(name: str, place: Path) -> None:
    assert _attack(place, name, 3, random.Random(name)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_forty_signals(name: str, place: Path) -> None:
    assert _attack(place, name, 40, random.Random(f"{name} again")) == 40
