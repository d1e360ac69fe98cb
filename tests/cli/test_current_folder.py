"""Files that lie in the current folder are data: none is imported, in no process that a command starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.bundles import make_tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
PLANTED = (
    *("numpy", "cv2", "typer", "rich", "json", "difflib", "onnxruntime", "openvino", "psutil", "pynvml", "statistics"),
    *("edgeseg_plugin", "secrets", "runpy", "simplejpeg", "PIL", "sitecustomize", "usercustomize", "torch"),
)
LINES = {
    "version": ("--version",),
    "models": ("models", "espnet*"),
    "doctor": ("doctor",),
    "predict": ("predict", "tiny.edgeseg", "tiny.edgeseg/sample.png", "--out", "out"),
    "verify": ("verify", "tiny.edgeseg"),
    "benchmark": ("benchmark", "tiny.edgeseg", "--seconds", "0", "--min-samples", "3", "--max-samples", "3"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path)
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write({name!r})\n")
    return tmp_path


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("line", LINES)
def test_no_module_of_the_current_folder_runs(line: str, folder: Path) -> None:
    done = _run(folder, "-m", "edgeseg", *LINES[line])
    assert not (folder / "RAN").exists(), (folder / "RAN").read_text()
    assert done.returncode == 0, done.stderr


def test_without_the_guard_they_would(folder: Path) -> None:
    """The same folder under a module that has none: the planted files are ones that would run."""
    _run(folder, "-m", "timeit", "-n", "1", "import numpy")
    assert "numpy" in (folder / "RAN").read_text()


def test_a_network_that_the_user_names_may_lie_there_with_what_it_imports(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "import blocks\nfrom torch import nn\ndef build(): return nn.Conv2d(3, blocks.CLASSES, 1)\n"
    )
    (folder / "blocks.py").write_text("CLASSES = 4\n")
    done = _run(folder, "-m", "edgeseg", "export", "mine:build", "--size", "32x32", "--out", "build")
    assert done.returncode == 0, done.stderr
    assert (folder / "build" / "build.edgeseg" / "manifest.json").is_file()
    assert not (folder / "RAN").exists(), (folder / "RAN").read_text()
