"""Measuring in a process of its own: answers, deaths and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bench import benchmark
from edgeseg.bench.isolated import run_worker
from edgeseg.bench.worker import answer
from edgeseg.bundle import MODEL
from edgeseg.errors import BundleError, EdgesegError, InputError, UsageError
from tests.runtimes.bundles import SAMPLE_SIZE, make_tiny_bundle

posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


def run_script(folder: Path, script: str) -> object:
    return run_worker({}, folder, "ort", command=(sys.executable, "-c", script))


def test_a_bundle_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    report = benchmark(bundle, "ort", threads=1, min_samples=5, seconds=0.0, warmup_seconds=0.0)
    assert report.own_process
    assert list(report.stages) == ["decode", "pre", "infer", "postprocess", "total"]
    assert report.stages["total"].n == 5
    assert report.session.target == "ort"
    assert report.session.engine.startswith("onnxruntime")
    assert report.options == {"threads": 1}
    assert report.load_ms > 0.0
    assert report.first_ms >= report.first_infer_ms > 0.0
    assert report.source_sizes == (SAMPLE_SIZE,)


def test_arrays_travel_to_the_worker(tmp_path: Path) -> None:
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    report = benchmark(make_tiny_bundle(tmp_path).path, images=[image], min_samples=2, seconds=0.0, warmup_frames=0)
    assert report.source_sizes == ((40, 60),)
    assert "decode" not in report.stages


def test_the_same_stages_come_out_in_this_process(tmp_path: Path) -> None:
    report = benchmark(make_tiny_bundle(tmp_path), in_process=True, min_samples=3, seconds=0.0, warmup_frames=0)
    assert not report.own_process
    assert list(report.stages) == ["decode", "pre", "infer", "postprocess", "total"]


def test_the_workers_error_is_raised_here_with_its_class(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    with (bundle.path / MODEL).open("ab") as stream:
        stream.write(b"damage")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        benchmark(bundle.path, min_samples=2, seconds=0.0)
    odd = tmp_path / "odd.png"
    odd.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"odd\.png"):
        benchmark(make_tiny_bundle(tmp_path, name="whole").path, images=[odd], min_samples=2, seconds=0.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("InputError", InputError), ("UnknownNameError", UsageError), ("NoSuchClass", EdgesegError)],
)
def test_error_classes_survive_the_way(tmp_path: Path, kind: str, expected: type[EdgesegError]) -> None:
    script = f'import sys; open(sys.argv[2], \'w\').write(\'{{"error": {{"kind": "{kind}", "message": "a, b"}}}}\')'
    with pytest.raises(EdgesegError, match=r"^a, b$") as caught:
        run_script(tmp_path, script)
    assert type(caught.value) is expected


def test_the_worker_answers_with_errors_not_tracebacks(tmp_path: Path) -> None:
    found = answer({"bundle": str(tmp_path / "none"), "target": "ort", "images": [], "options": {}, "settings": {}})
    assert found["error"]["kind"] == "BundleError"


@posix
def test_a_killed_worker_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match=r"measuring ort was ended by SIGKILL \(most often the memory ran out\)"):
        run_script(tmp_path, "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(EdgesegError, match=r"SIGABRT \(the engine crashed\).*last words: out of luck"):
        run_script(tmp_path, "import os; print('out of luck', flush=True); os.abort()")


def test_a_worker_without_an_answer_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match=r"code 3 and no answer.*--in-process.*last words: what a day"):
        run_script(tmp_path, "import sys; print('what a day', file=sys.stderr); sys.exit(3)")
    with pytest.raises(EdgesegError, match="code 0 and no answer"):
        run_script(tmp_path, "pass")


@posix
def test_ctrl_c_stops_the_worker(tmp_path: Path) -> None:
    script = "import os, sys, time; open(sys.argv[2] + '.pid', 'w').write(str(os.getpid())); time.sleep(60)"
    note = tmp_path / "answer.json.pid"

    def interrupt() -> None:
        deadline = time.monotonic() + 30.0
        while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_script(tmp_path, script)
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_the_worker_ends_when_its_parent_is_gone() -> None:
    script = (
        "import threading, time; from edgeseg.bench.worker import _end_with_parent as end; "
        "threading.Thread(target=end, daemon=True).start(); print('ready', flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, cwd=root) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready"
        process.stdin.close()
        assert process.wait(30.0) == 130
