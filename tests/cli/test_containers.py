"""Standard error has edgeseg's own lines alone, in containers and other bare places too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from edgeseg._optional import is_installed as _has
from edgeseg.bundle import open_bundle
from edgeseg.cli._shared import results_alone_on_stdout
from edgeseg.predictor import Predictor
from tests.cli.processes import ROOT
from tests.runtimes.bundles import make_tiny_bundle, picture

STRANGER = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
"""Runs as a user who is in no list of users."""

MOUNTS = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


def _within(script: str) -> tuple[str, ...]:
    """Run after a script that changes what is mounted."""
    return (*MOUNTS, f'{script} && exec "$@"', "sh")


READ_ONLY = _within("mount -o remount,ro,bind /")
NO_SYS = _within("mount -t tmpfs none /sys")
MEASURED = "measuring tiny.edgeseg on ort ...\n"


def _runs(*prefix: str) -> bool:
    if sys.platform != "linux" or shutil.which(prefix[0]) is None:
        return False
    return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a picture, and its labels."""
    folder = tmp_path_factory.mktemp("container")
    targets = ("ort", "openvino") if _has("openvino") else ("ort",)
    bundle = make_tiny_bundle(folder, targets=targets)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / "images" / "0.png"), picture((40, 60)))
    with Predictor(bundle) as predictor:
        cv2.imwrite(str(folder / "labels" / "0.png"), predictor(folder / "images" / "0.png").labels)
    return folder


def _run(data: Path, *words: str, prefix: tuple[str, ...] = (), **variables: str | None) -> tuple[int, str, str]:
    """Run a command in the folder; None takes a variable away."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {name: value for name, value in variables.items() if value is not None}
    for name in [name for name, value in variables.items() if value is None]:
        environment.pop(name, None)
    command = [*prefix, sys.executable, "-m", "edgeseg", *words]
    done = subprocess.run(
        command, env=environment, cwd=data, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


COMMANDS = {
    "doctor": (("doctor",), ""),
    "eval": (("eval", "tiny.edgeseg", "--images", "images", "--labels", "labels"), ""),
    "verify": (("verify", "tiny.edgeseg"), ""),
    "benchmark": (
        ("benchmark", "tiny.edgeseg", "--min-samples", "2", "--max-samples", "2", "--seconds", "0"),
        MEASURED,
    ),
}


@pytest.mark.skipif(not _runs(*STRANGER), reason="needs Linux and the right to map users")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_without_home_and_name(command: str, data: Path) -> None:
    words, said = COMMANDS[command]
    assert _run(data, *words, prefix=STRANGER, HOME=None)[::2] == (0, said)


@pytest.mark.skipif(not _runs(*READ_ONLY), reason="needs Linux and the right to mount")
@pytest.mark.parametrize("command", ["doctor", "eval"])
def test_nothing_can_be_written(command: str, data: Path) -> None:
    words, said = COMMANDS[command]
    assert _run(data, *words, prefix=READ_ONLY, HOME="/nonexistent", TMPDIR="/nonexistent")[::2] == (0, said)


@pytest.mark.skipif(not _runs(*READ_ONLY), reason="needs Linux and the right to mount")
def test_a_temporary_folder_that_is_missing_is_named(data: Path) -> None:
    code, _, err = _run(data, *COMMANDS["benchmark"][0], prefix=READ_ONLY, TMPDIR="/nonexistent")
    first, sentence = err.splitlines()
    assert (code, first) == (8, MEASURED.rstrip())
    assert sentence.startswith("edgeseg: no usable temporary directory found in")
    assert sentence.endswith("; set TMPDIR to a folder that can be written")


@pytest.mark.skipif(not _runs(*NO_SYS), reason="needs Linux and the right to mount")
def test_openvino_counts_processors_in_silence(data: Path) -> None:
    if "openvino" not in open_bundle(data / "tiny.edgeseg").manifest.targets:
        pytest.skip("OpenVINO is not installed")
    words = ("eval", "tiny.edgeseg", "--images", "images", "--labels", "labels", "--target", "openvino")
    assert _run(data, *words, prefix=NO_SYS)[::2] == (0, "")


@pytest.mark.skipif(not _runs("taskset", "-c", "0"), reason="needs taskset")
def test_one_processor_and_a_poor_terminal(data: Path) -> None:
    words, said = COMMANDS["verify"]
    poor = {"TERM": "dumb", "COLUMNS": "20", "LANG": "C", "LC_ALL": "C"}
    assert _run(data, *words, prefix=("taskset", "-c", "0"), **poor)[::2] == (0, said)


@pytest.mark.parametrize("command", ["doctor", "eval"])
def test_a_reader_that_has_gone_is_no_error(command: str, data: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "edgeseg", *COMMANDS[command][0]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=data,
            stdout=gone,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_standard_output_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with results_alone_on_stdout():
        pass
