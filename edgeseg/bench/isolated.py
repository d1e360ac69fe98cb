"""Measuring in a separate process: the parent's side of `edgeseg.bench.worker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import errors
from edgeseg._signals import report_process, signal_name
from edgeseg.bench.report import BenchmarkReport, Settings
from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError
from edgeseg.files import scratch_folder
from edgeseg.runtimes._base import RuntimeOptions

__all__ = ["measure_in_own_process", "python_module", "run_worker", "worker_environment"]

_START = (
    "import sys; sys.path = [folder for folder in sys.path if folder]; "
    "import runpy; runpy.run_module({!r}, run_name='__main__', alter_sys=True)"
)
_STOP_S = 0.5


def python_module(module: str) -> tuple[str, ...]:
    """Build a command that runs a module as ``python -m`` does, but does not import from the current folder.

    A ``numpy.py`` that happens to be there must not run. Python 3.11 has ``-P`` for it, 3.10 has nothing.
    """
    return sys.executable, "-c", _START.format(module)


WORKER = python_module("edgeseg.bench.worker")


def measure_in_own_process(
    bundle: Bundle,
    target: str,
    images: Sequence[Path | NDArray[np.uint8]],
    *,
    options: RuntimeOptions,
    settings: Settings,
) -> BenchmarkReport:
    """Measure in a fresh Python process; see `edgeseg.bench.harness.measure`.

    Raises:
        EdgesegError: Of the class the worker raised, or the plain one where it ended without an answer.
    """
    with scratch_folder("edgeseg-benchmark") as folder:
        request = {
            "bundle": str(bundle.path.resolve()),
            "target": target,
            "images": [_picture(image, index, folder) for index, image in enumerate(images)],
            "options": {**vars(options), "provider_options": dict(options.provider_options)},
            "settings": asdict(settings),
        }
        return BenchmarkReport.from_json(run_worker(request, folder, target))


def run_worker(
    request: Mapping[str, Any], folder: Path, target: str, *, command: Sequence[str] = WORKER
) -> dict[str, Any]:
    """Start the worker, wait for it, and return the report it wrote.

    Args:
        request: What `edgeseg.bench.worker` reads.
        folder: Temporary folder for the request, the answer and the engine's messages.
        target: For the error message.
        command: The worker without its arguments.

    Raises:
        EdgesegError: As `measure_in_own_process`.
        KeyboardInterrupt: Ctrl-C; the worker is stopped first.
    """
    question, answer, messages = folder / "request.json", folder / "answer.json", folder / "stderr.txt"
    question.write_text(json.dumps(request), encoding="utf-8")
    with messages.open("wb") as stream:
        process = subprocess.Popen(
            [*command, str(question), str(answer)],
            stdin=subprocess.PIPE,  # its end tells the worker that the parent is gone
            stdout=stream,
            stderr=stream,
            env=worker_environment(),
        )
        report_process("+", process.pid)
        try:
            code = process.wait()
        finally:
            _stop(process)
            report_process("-", process.pid)
    return _read_answer(answer, code, target, messages.read_text(encoding="utf-8", errors="replace"))


def _read_answer(answer: Path, code: int, target: str, messages: str) -> dict[str, Any]:
    if code == 0 and answer.is_file():
        data: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in data:
            raise _rebuilt(data["error"]["kind"], data["error"]["message"])
        return data
    if code < 0:
        name = signal_name(-code)
        why = "most often the memory ran out" if name == "SIGKILL" else "the engine crashed"
        raise EdgesegError(
            f"the process measuring {target} was ended by {name} ({why}); "
            f"free memory or use a smaller input size, then measure again{_last(messages)}"
        )
    raise EdgesegError(
        f"the process measuring {target} ended with code {code} and no answer; "
        f"measure with --in-process to see where{_last(messages)}"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _rebuilt(kind: str, message: str) -> EdgesegError:
    """Rebuild the worker's error in this process.

    A class whose constructor takes other arguments becomes its plain parent.
    """
    known = getattr(errors, kind, EdgesegError)
    plain = next(c for c in known.__mro__ if "__init__" not in vars(c) or c is EdgesegError)
    error: EdgesegError = plain(message)
    return error


def _last(messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    return f" (its last words: {lines[-1][:300]})" if lines else ""


def _picture(image: Path | NDArray[np.uint8], index: int, folder: Path) -> str:
    if isinstance(image, Path):
        return str(image.resolve())
    file = folder / f"{index}.npy"
    np.save(file, image, allow_pickle=False)
    return str(file)


def worker_environment() -> dict[str, str]:
    """Copy this process's environment; where edgeseg runs from a checkout, let the worker import it from there."""
    root = Path(__file__).resolve().parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
