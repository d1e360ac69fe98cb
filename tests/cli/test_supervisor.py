"""Commands as processes: a signal ends them whatever native code is doing, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.bundle import METADATA_KEY, MODEL, Bundle
from tests.cli.processes import CODES, SAID, Command
from tests.runtimes.bundles import changed, make_tiny_bundle, picture

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a command runs in a child process where the system forks"
)

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 2.0


def endless(bundle: Bundle) -> Bundle:
    """The bundle with a loop before its graph that does not end; everything else is made to fit."""
    model = onnx.load(bundle.path / MODEL)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["x", "one"], ["x_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, []),
        ],
    )
    graph = model.graph
    for name, kind, value in (("most", TensorProto.INT64, 2**62), ("yes", TensorProto.BOOL, True)):
        graph.initializer.append(helper.make_tensor(name, kind, [], [value]))
    for name, number in (("one", 1.0), ("zero", 0.0)):
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [number]))
    graph.node[-1].output[0] = "plain"
    graph.node.extend(
        [
            helper.make_node("Loop", ["most", "yes", "zero"], ["counted"], body=body),
            helper.make_node("Mul", ["counted", "zero"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["logits"]),
        ]
    )
    helper.set_model_props(model, {METADATA_KEY: ""})
    onnx.save(model, bundle.path / MODEL)
    return changed(bundle)


@pytest.fixture
def hanging(tmp_path: Path) -> Bundle:
    cv2.imwrite(str(tmp_path / "frame.png"), picture((40, 60))[..., ::-1])
    (tmp_path / "labels").mkdir()
    (tmp_path / "frames").mkdir()
    cv2.imwrite(str(tmp_path / "frames" / "frame.png"), picture((40, 60))[..., ::-1])
    cv2.imwrite(str(tmp_path / "labels" / "frame.png"), np.zeros((40, 60), np.uint8))
    return endless(make_tiny_bundle(tmp_path))


LINES = {
    "predict": ("frame.png", "--out", "out"),
    "verify": (),
    "eval": ("--images", "frames", "--labels", "labels"),
    "benchmark": (),
    "benchmark --in-process": (),
}


FAST = ("predict", signal.SIGTERM), ("benchmark", signal.SIGINT)
GRID = [
    pytest.param(line, number, marks=() if (line, number) in FAST else pytest.mark.slow, id=f"{line}-{number.name}")
    for line in LINES
    for number in CODES
]


@pytest.mark.parametrize(("line", "number"), GRID)
def test_a_graph_that_does_not_end_is_ended(line: str, number: int, hanging: Bundle, tmp_path: Path) -> None:
    name, *flags = line.split()
    command = Command(tmp_path, name, hanging.path, *flags, *LINES[line])
    command.wait_until_busy(0.2 if line == "benchmark" else 2.0)
    if line == "benchmark":
        time.sleep(3.0)  # the graph runs in a process further down
    code, err, seconds = command.end(number)
    assert code == CODES[signal.Signals(number)], err
    assert err.endswith(SAID[code])
    assert "Traceback" not in err
    assert seconds < LIMIT_S
    assert command.left() == []
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_export_is_ended_and_leaves_nothing(number: int, tmp_path: Path) -> None:
    command = Command(tmp_path, "export", "espnet_p2_q8", "--size", "64x128", "--out", "build")
    command.wait_until_busy(4.0)
    code, err, seconds = command.end(number)
    assert code == CODES[signal.Signals(number)], err
    assert err.endswith(SAID[code])
    assert seconds < LIMIT_S
    assert command.left() == []
    assert not (tmp_path / "build" / "espnet_p2_q8.edgeseg").exists()


def test_a_crash_of_native_code_is_one_sentence(hanging: Bundle, tmp_path: Path) -> None:
    command = Command(tmp_path, "predict", hanging.path, "frame.png", "--out", "out")
    command.wait_until_busy()
    os.kill(command.child(), signal.SIGSEGV)
    _, err = command.process.communicate(timeout=20.0)
    assert command.process.returncode == 1
    assert err.startswith("edgeseg: the command was ended by SIGSEGV (native code crashed on this input)")
    assert command.left() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_the_work_ends_when_the_parent_is_killed(hanging: Bundle, tmp_path: Path) -> None:
    command = Command(tmp_path, "eval", hanging.path, "--images", "frames", "--labels", "labels", "--limit", "1")
    child = command.child()
    command.process.kill()
    command.process.communicate(timeout=20.0)
    deadline = time.monotonic() + 5.0
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As `nohup` starts it."""
    script = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    words = [sys.executable, "-m", "edgeseg", "models", "espnet*"]
    process = subprocess.Popen([sys.executable, "-c", script, *words], cwd=tmp_path, stdout=subprocess.PIPE)
    for _ in range(10):
        time.sleep(0.1)
        process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60.0)
    assert process.returncode == 0
    assert b"espnet_p2_q8" in out


# --- the first signal decides, whatever it became on the way


_SWALLOWERS = {
    "another error": "except BaseException: raise EdgesegError('reinstall everything')",
    "an exit": "except BaseException: raise SystemExit(0)",
    "nothing": "except BaseException: pass",
}


@pytest.fixture
def swallowing(tmp_path: Path) -> Path:
    """A script that runs the command line with a `doctor` that turns signals into something else."""
    file = tmp_path / "script.py"
    return file


def signalled(script: Path, number: int) -> tuple[int, str, str]:
    """Run a script in its folder, send it a signal once it printed ``ready``; its code, standard error and the rest."""
    with subprocess.Popen(
        [sys.executable, script.name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=script.parent
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=20.0)
    return process.returncode, err, out


@pytest.mark.parametrize("way", _SWALLOWERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_signal_decides_the_exit_code(way: str, number: int, swallowing: Path) -> None:
    swallowing.write_text(
        "import sys, time\n"
        "import edgeseg.doctor as probe\n"
        "from edgeseg.cli import main\n"
        "from edgeseg.errors import EdgesegError\n"
        "def slow():\n"
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        time.sleep(60)\n"
        f"    {_SWALLOWERS[way]}\n"
        "    return real()\n"
        "real, probe.probe_machine = probe.probe_machine, slow\n"
        "main(['doctor'])\n"
    )
    code = CODES[signal.Signals(number)]
    assert signalled(swallowing, number)[:2] == (code, SAID[code])


def test_a_signal_lost_in_a_destructor_comes_again(swallowing: Path) -> None:
    swallowing.write_text(
        "import time\n"
        "import edgeseg.doctor as probe\n"
        "from edgeseg.cli import main\n"
        "class Slow:\n"
        "    def __del__(self):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "def slow():\n"
        "    Slow()\n"
        "    time.sleep(60)\n"
        "probe.probe_machine = slow\n"
        "main(['doctor'])\n"
    )
    assert signalled(swallowing, signal.SIGTERM) == (143, SAID[143], "")


def test_a_signal_after_the_bundle_is_in_place_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from edgeseg.files import atomic_folder\n"
        "from edgeseg.cli import main\n"
        "import edgeseg.doctor as probe\n"
        "def slow():\n"
        "    with atomic_folder(Path('made'), settles=True) as folder:\n"
        "        (folder / 'a').write_text('1')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(2.5)\n"
        "    return real()\n"
        "real, probe.probe_machine = probe.probe_machine, slow\n"
        "main(['doctor'])\n"
    )
    code, err, out = signalled(tmp_path / "script.py", signal.SIGTERM)
    assert code == 0, err
    assert "Nothing was installed or changed." in out
    assert (tmp_path / "made" / "a").is_file()
