"""Mutated bundles: refused in one sentence, found out by the self test, or the same labels as before; nothing else.

The first kinds are what damage and editing by hand do; the others were written anew on purpose, every hash and every
graph's metadata made to fit, so that only the checks of fields, shapes and the self test are left.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.bundle import MANIFEST, Bundle, open_bundle
from edgeseg.errors import EdgesegError
from edgeseg.files import sha256_of
from edgeseg.manifest import _digest
from edgeseg.predictor import Predictor
from tests.runtimes.bundles import changed, make_tiny_bundle, picture

ROOT = Path(__file__).resolve().parents[2]
SECONDS, BYTES, LETTERS = 20.0, 1 << 30, 600
GOOD = ("refused", "told", "same")

Mutate = Callable[[Bundle, random.Random], None]

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 65535, 65536, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *("", "ort", "fp32", "evil:build", "os:abort", "\x1b[2J", "x" * 10_000, "../../etc/passwd", "\u202e", "\ud800"),
    *([], {}, [[]], [None], ["ort"], [1, 2], [1, 2, 3], {"": ""}, [[[[[[]]]]]], [0.5] * 3, ["a"] * 4, [[0, 0, 0]] * 4),
)


def _damage(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    way = rng.randrange(5)
    if way == 0 or not data:
        data = data[: rng.randrange(len(data) + 1)]
    elif way == 1:
        data += rng.randbytes(rng.choice((1, 7, 4096)))
    elif way == 2:
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
    else:
        for _ in range(rng.choice((1, 1, 2, 30))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _any_file(bundle: Bundle, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in bundle.path.rglob("*") if path.is_file()))


def damaged(bundle: Bundle, rng: random.Random) -> None:
    _damage(_any_file(bundle, rng), rng)


def edited(bundle: Bundle, rng: random.Random) -> None:
    """A value of the manifest changed in a text editor."""
    data = json.loads((bundle.path / MANIFEST).read_text())
    _change(data, rng)
    (bundle.path / MANIFEST).write_text(json.dumps(data))


def forged(bundle: Bundle, rng: random.Random) -> None:
    """The same, with the manifest's own hash made anew."""
    data = json.loads((bundle.path / MANIFEST).read_text())
    _change(data, rng)
    data["sha256"] = _digest({key: value for key, value in data.items() if key != "sha256"})
    (bundle.path / MANIFEST).write_text(json.dumps(data))


def _change(data: Any, rng: random.Random) -> None:
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        key = rng.choice(keys)
        if isinstance(data[key], (dict, list)) and data[key] and rng.random() < 0.6:
            data = data[key]
            continue
        if isinstance(data, dict) and rng.random() < 0.1:
            del data[key]
        elif isinstance(data, list) and rng.random() < 0.2:
            data.append(data[key])
        else:
            data[key] = rng.choice(_VALUES)
        return


def rewritten(bundle: Bundle, rng: random.Random) -> None:
    """Bytes of a graph, of weights or of the sample changed, and every hash made anew."""
    name = rng.choice(sorted(bundle.manifest.files))
    _damage(bundle.path / name, rng)
    files = {name: sha256_of(bundle.path / name) for name in bundle.manifest.files}
    changed(Bundle(bundle.path, replace(bundle.manifest, files=files)), graphs=False)


def replaced(bundle: Bundle, rng: random.Random) -> None:
    """A file that is gone, or something else in its place."""
    file = _any_file(bundle, rng)
    file.unlink()
    way = rng.randrange(7)
    if way == 1:
        os.mkfifo(file)
    elif way == 2:
        file.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", "/dev/tty", file.name, "..", "/proc/self/mem")))
    elif way == 3:
        file.mkdir()
    elif way == 4:
        with file.open("wb") as stream:
            stream.truncate(rng.choice((0, 1 << 20, 1 << 31)))
    elif way == 5:
        file.write_bytes(b"\0" * rng.randrange(100))
    elif way == 6:
        file.write_text("[" * 200_000)


def naming_code(bundle: Bundle, rng: random.Random) -> None:
    """A network that is code, everything made to fit, and the code beside it."""
    words = ("evil:build", "evil", "os:abort", "sys:exit", "http.server:test", "subprocess:run", "pdb:set_trace")
    changed(bundle, network=rng.choice(words))
    (bundle.path / "evil.py").write_text("open('RAN', 'w').close()\n")


_KINDS: tuple[Mutate, ...] = (damaged, edited, forged, rewritten, replaced, naming_code)


def _outcome(bundle: Bundle, mutate: Mutate, baseline: dict[str, Any], rng: random.Random) -> str:
    """What a device does with the bundle."""
    target = rng.choice(("ort", "ort", "openvino", "torch") if mutate is naming_code else ("ort", "ort", "openvino"))
    try:
        with Predictor(open_bundle(bundle.path), target, threads=1) as predictor:
            test = predictor.self_test()
            labels = predictor(picture((40, 60))).labels
            shares = predictor(picture((40, 60))).shares()
    except EdgesegError as error:
        text = str(error)
        return "refused" if "\n" not in text and 0 < len(text) < LETTERS else f"unclear: {text!r}"
    if test.agreement < predictor.manifest.self_test:
        return "told"
    if mutate is not rewritten and not np.array_equal(labels, baseline[target]):
        return "wrong labels"
    return "same" if abs(sum(shares.values()) - 1) < 1e-6 else "wrong shares"


def _child(seed: int, count: int, work: Path) -> None:
    os.chdir(work)
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    rng = random.Random(seed)
    good = make_tiny_bundle(work, targets=("ort", "openvino", "torch"))
    changed(good, network="extremec3net")
    good = open_bundle(good.path)
    baseline = {}
    for target in ("ort", "openvino"):
        with Predictor(good, target, threads=1) as predictor:
            baseline[target] = predictor(picture((40, 60))).labels
    for index in range(count):
        mutate = rng.choice(_KINDS)
        copy = Path(shutil.copytree(good.path, work / "copy.edgeseg"))
        mutate(Bundle(copy, good.manifest), rng)
        print(json.dumps([index, mutate.__name__]), flush=True)
        before, start = _peak(), time.perf_counter()
        told = _outcome(Bundle(copy, good.manifest), mutate, baseline, rng)
        spent, grown = time.perf_counter() - start, _peak() - before
        if spent > SECONDS or grown > BYTES:
            told = f"costly: {spent:.1f} s and {grown >> 20} MB, {told}"
        print(json.dumps(told), flush=True)
        shutil.rmtree(copy)
    assert not Path("RAN").exists(), "code of a bundle ran"


def _peak() -> int:
    """Most bytes this process ever held."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def _run(seed: int, count: int) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as work:
        words = [sys.executable, "-m", "tests.fuzz.test_bundles", str(seed), str(count), work]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", '"'))]
    assert done.returncode == 0, f"seed {seed}: ended with {done.returncode} on {lines[-1:]}; {done.stderr[-2000:]}"
    outcomes = [(name, told) for name, told in zip(lines[::2], lines[1::2], strict=True) if told not in GOOD]
    assert outcomes == []
    return {told: lines[1::2].count(told) for told in GOOD}


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by /proc")


def test_a_few_hundred_bad_bundles() -> None:
    pytest.importorskip("openvino")
    counts = _run(seed=0, count=250)
    assert counts["refused"] > 120
    assert counts["same"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_thousands_of_bad_bundles(seed: int) -> None:
    pytest.importorskip("openvino")
    assert sum(_run(seed, count=500).values()) == 500


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
