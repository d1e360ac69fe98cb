"""The frame around the commands: help, imports, usage errors, interruptions, and what becomes of other errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeseg._signals import Terminated
from edgeseg.cli import spread_targets
from edgeseg.errors import EdgesegError
from tests.cli.conftest import Edgeseg

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("models", "export", "predict", "verify", "eval", "benchmark", "doctor")
HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "onnxsim", "onnxscript", "safetensors", "psutil", "PIL")


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_edgeseg_loads_no_engine() -> None:
    loaded = _python(f"import sys, edgeseg; print([name for name in {(*HEAVY, 'typer')!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_help_of_every_command_loads_no_engine() -> None:
    lines = [[name, "--help"] for name in COMMANDS] + [["--help"], ["benchmark", "compare", "--help"], ["--version"]]
    code = (
        "import sys; from edgeseg.cli import run\n"
        f"codes = [run(line) for line in {lines!r}]\n"
        f"print('END', codes, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert _python(code).rpartition("END ")[2].strip() == f"{[0] * len(lines)} []"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_the_command_does(command: str, edgeseg: Edgeseg) -> None:
    done = edgeseg(command, "--help")
    assert done.code == 0
    assert f"edgeseg {command}" in done.out
    assert done.err == ""


def test_version_and_no_words(edgeseg: Edgeseg) -> None:
    assert edgeseg("--version").out.startswith("edgeseg 0.")
    bare = edgeseg()
    assert bare.code == 2
    assert "Usage: edgeseg" in bare.out
    assert bare.err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "no such command 'nonsense'"),
        (["export"], "missing argument"),
        (["export", "x", "--nonsense"], "--nonsense"),
        (["verify", "x", "--min-agreement", "2"], "--min-agreement"),
        (["export", "x", "--fixed-batch", "two"], "--fixed-batch"),
        (["eval", "x", "--images", "y"], "--labels"),
        (["predict", "x", "y", "--target", "ort", "openvino"], "openvino"),
    ],
)
def test_a_wrong_command_line_names_what_is_wrong(words: list[str], message: str, edgeseg: Edgeseg) -> None:
    done = edgeseg(*words)
    assert done.code == 2
    assert message in done.sentence
    assert "--help" in done.sentence
    assert done.out == ""


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        ("export n --target ort openvino", "export n --target ort --target openvino"),
        ("export n -t ort ov trt-rtx --out b", "export n -t ort --target ov --target trt-rtx --out b"),
        ("export --target ort openvino n", "export --target ort --target openvino n"),
        ("export n --target ort opnvino", "export n --target ort --target opnvino"),
        ("export n --target=ort openvino trt", "export n --target=ort --target openvino --target trt"),
        ("export n --size 1x1 ort", "export n --size 1x1 ort"),
        ("verify b --target ort,openvino", "verify b --target ort,openvino"),
        ("predict b --target ort openvino", "predict b --target ort openvino"),
        ("eval b --target ort ov", "eval b --target ort ov"),
        ("", ""),
    ],
)
def test_targets_may_follow_one_flag(words: str, spread: str) -> None:
    assert spread_targets(words.split()) == spread.split()


def test_a_file_named_nearly_like_a_target_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tensorr").write_text("")
    assert spread_targets(["benchmark", "--target", "ort", "tensorr"]) == ["benchmark", "--target", "ort", "tensorr"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped; nothing half-written was left"),
        (Terminated(), 143, "terminated; nothing half-written was left"),
        (MemoryError(), 1, "out of memory; use a smaller size or batch"),
        (OSError(13, "Permission denied", "some/file"), 8, "the system refused 'some/file': permission denied"),
        (EdgesegError("a sentence"), 1, "a sentence"),
    ],
)
def test_what_becomes_of_an_error(
    error: BaseException, code: int, message: str, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise error

    monkeypatch.setattr("edgeseg.doctor.probe_machine", fail)
    done = edgeseg("doctor")
    assert (done.code, done.sentence) == (code, message)


def test_the_caller_keeps_its_signal_handler(edgeseg: Edgeseg) -> None:
    before = signal.getsignal(signal.SIGTERM)
    edgeseg("--version")
    assert signal.getsignal(signal.SIGTERM) is before


def test_main_exits_with_the_code() -> None:
    script = "import threading, sys; from edgeseg.cli import main; sys.argv = ['edgeseg', 'nonsense']; "
    second = "threading.Thread(target=threading.Event().wait, daemon=True).start(); "
    for code in (f"{script}main()", f"{script}{second}main()", f"{script}main(['doctor', '--nonsense'])"):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("edgeseg: ")


def test_a_full_disk_behind_standard_output_is_reported() -> None:
    command = f"{sys.executable} -m edgeseg --help > /dev/full"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert done.stderr.startswith("edgeseg: ")
    assert done.stderr.endswith("no space left on device\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m edgeseg --help | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes them")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("models espnet*", 0), ("nonsense", 2)])
def test_streams_that_were_closed_before_the_start(closed: str, words: str, code: int, tmp_path: Path) -> None:
    command = f"cd {tmp_path}; exec {sys.executable} -m edgeseg {words} {closed}"
    done = subprocess.run(["bash", "-fc", command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert (done.stdout != "") == (code == 0 and ">&-" not in closed.replace("2>&-", ""))
    assert (done.stderr != "") == (code != 0 and "2>&-" not in closed)
