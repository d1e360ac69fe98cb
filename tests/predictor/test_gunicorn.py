"""A web server that forks its workers: each opens a Predictor of its own; one opened before the fork is a sentence."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeseg.predictor import Predictor
from tests.runtimes.bundles import make_tiny_bundle, picture

pytest.importorskip("gunicorn")
if sys.platform == "win32":
    pytest.skip("gunicorn forks, which Windows does not", allow_module_level=True)

APP = """
import functools, json, os
from edgeseg import Predictor
from edgeseg.errors import EdgesegError
from tests.runtimes.bundles import picture

opened = functools.cache(lambda: Predictor({bundle!r}, target={target!r}))
if {early}:
    opened()

def app(environ, start):
    try:
        said = opened()(picture()).labels.tolist()
    except EdgesegError as error:
        said = str(error)
    body = json.dumps([os.getpid(), said]).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


class _Unix(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@contextmanager
def served(folder: Path, target: str, *, early: bool) -> Iterator[Path]:
    """Two workers of gunicorn; gives their socket."""
    bundle = make_tiny_bundle(folder, targets=("ort", "openvino"))
    source = APP.format(bundle=str(bundle.path), target=target, early=early)
    (folder / "served_app.py").write_text(source, encoding="utf-8")
    path = folder / "s"
    words = ["-m", "gunicorn", "--bind", f"unix:{path}", "--workers", "2", "--log-level", "error", "--timeout", "60"]
    words += ["--preload"] if early else []
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), root))}
    with subprocess.Popen([sys.executable, *words, "served_app:app"], cwd=folder, env=environment) as server:
        try:
            limit = time.monotonic() + 60
            while not path.exists() and server.poll() is None and time.monotonic() < limit:
                time.sleep(0.05)
            yield path
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0


def asked(path: Path) -> tuple[int, Any]:
    """A worker's number, and what it answered."""
    connection = _Unix(path)
    connection.request("GET", "/")
    worker, said = json.loads(connection.getresponse().read())
    connection.close()
    return int(worker), said


@pytest.mark.parametrize("target", ["ort", "openvino"])
def test_workers_that_open_their_own_agree(tmp_path: Path, target: str) -> None:
    pytest.importorskip({"ort": "onnxruntime"}.get(target, target))
    with served(tmp_path, target, early=False) as path:
        answers = [asked(path) for _ in range(6)]
    with Predictor(tmp_path / "tiny.edgeseg", target=target) as predictor:
        wanted = predictor(picture()).labels.tolist()
    assert [said for _, said in answers] == [wanted] * 6


@pytest.mark.parametrize("target", ["ort", "openvino"])
def test_workers_of_a_server_that_opened_one_say_so(tmp_path: Path, target: str) -> None:
    pytest.importorskip({"ort": "onnxruntime"}.get(target, target))
    with served(tmp_path, target, early=True) as path:
        answers = [asked(path) for _ in range(3)]
    for _, said in answers:
        assert "was opened in another process" in said
        assert "open a Predictor in each process" in said
