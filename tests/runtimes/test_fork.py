"""Sessions and forked processes: one sentence in the child, never a wait that does not end, nor a signal at the end.

Every fork happens in a process of its own: a child that waits for ever is ended with it, and the test fails.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import UsageError
from edgeseg.runtimes import open_session
from edgeseg.runtimes._base import INHERITED
from tests.runtimes.bundles import make_tiny_bundle

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is POSIX")

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
ENGINES = ("ort", "openvino", "ncnn", "torch")

PARENT = """
import gc, os, signal, sys
import numpy as np
from edgeseg import Predictor
from edgeseg.errors import EdgesegError
from edgeseg.runtimes import RuntimeOptions

path, target, wanted, *acts = sys.argv[1:]
image = (np.arange(256 * 256 * 3) % 251).reshape(256, 256, 3).astype(np.uint8)

def opened(target):
    network = "tests.runtimes.bundles:tiny_network" if target == "torch" else None
    return Predictor(path, target=target, options=RuntimeOptions(threads=2, network=network))

predictor = opened(target)
labels = predictor(image).labels
for act in acts:
    print(f"{act}: ", end="", flush=True)
    child = os.fork()
    if not child:
        break
    print(f"; ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
    assert (predictor(image).labels == labels).all()
else:
    sys.exit(0)
signal.alarm(20)  # no child outlives its test
try:
    if act == "use":
        predictor(image)
    elif act == "stream":
        list(predictor.stream([image]))
    elif act == "open":
        print("equal" if (opened(wanted)(image).labels == labels).all() else "different", end="")
    elif act == "close":
        predictor.close()
        predictor.close()
    elif act == "drop":
        del predictor
        gc.collect()
except EdgesegError as error:
    print(type(error).__name__, error, end="")
sys.exit(0)  # with every destructor
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("fork"), targets=ENGINES, size=(256, 256))


def children_of(bundle: Bundle, target: str, wanted: str, *acts: str) -> dict[str, str]:
    """Open `target`, then fork for every act; what each child prints. The act ``open`` opens `wanted`."""
    for name in {target, wanted}:
        pytest.importorskip({"ort": "onnxruntime"}.get(name, name))
    command = [sys.executable, "-c", PARENT, str(bundle.path), target, wanted, *acts]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


STARTED = (
    "TargetUnavailableError {} was started before this process was forked, and its threads are missing here; use the "
    "start method spawn or forkserver, or open nothing for {} before the fork"
)


@pytest.mark.parametrize(
    ("target", "opening"),
    [
        ("ort", "equal"),
        ("openvino", STARTED.format("OpenVINO", "OpenVINO")),
        ("ncnn", STARTED.format("ncnn", "ncnn")),
        ("torch", STARTED.format("PyTorch", "PyTorch")),
    ],
)
def test_a_forked_child_gets_a_sentence_and_ends(bundle: Bundle, target: str, opening: str) -> None:
    said = children_of(bundle, target, target, "use", "stream", "open", "close", "drop", "end")
    refused = f"InputError {INHERITED}; ended with 0"
    assert said == {
        "use": refused,
        "stream": refused,
        "open": f"{opening}; ended with 0",
        "close": "; ended with 0",
        "drop": "; ended with 0",
        "end": "; ended with 0",
    }


def test_a_child_opens_what_its_parent_did_not(bundle: Bundle) -> None:
    assert children_of(bundle, "ort", "openvino", "open") == {"open": "equal; ended with 0"}


def test_a_session_is_not_pickled(bundle: Bundle) -> None:
    session = open_session(bundle, "ort")
    with pytest.raises(UsageError, match="a session cannot be pickled; pickle its Predictor"):
        pickle.dumps(session)
    assert session.run(np.zeros((1, 256, 256, 3), np.uint8))
