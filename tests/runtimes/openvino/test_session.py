"""OpenVINO behind the seam: exact in f32, weights not rounded, devices that are there, and what it says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, ExportError, InputError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.runtimes import RuntimeOptions, Session, open_session
from edgeseg.runtimes.openvino import OPENVINO_MODEL
from edgeseg.runtimes.openvino.build import convert
from edgeseg.runtimes.openvino.session import shared_core
from edgeseg.specs import InputSpec
from tests.runtimes.bundles import make_tiny_bundle, picture

ROOT = Path(__file__).resolve().parents[2]
openvino = pytest.importorskip("openvino")

#: Largest difference of logits of the tiny network (range about 40) between two float32 engines.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    spec = InputSpec.imagenet("bgr")
    return make_tiny_bundle(tmp_path_factory.mktemp("openvino"), targets=("ort", "openvino"), spec=spec)


def test_logits_are_those_of_onnx_runtime(bundle: Bundle) -> None:
    image = picture()[None]
    wanted = open_session(bundle, "ort").run(image)["logits"]
    got = open_session(bundle, "openvino").run(image)["logits"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


def test_weights_are_not_rounded_to_half(bundle: Bundle) -> None:
    model = shared_core().read_model(str(bundle.file(OPENVINO_MODEL)))
    kinds = {
        operation.get_element_type().get_type_name()
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.get_element_type().is_real()
    }
    assert kinds == {"f32"}


def test_info_is_what_the_compiled_model_says(bundle: Bundle) -> None:
    session = open_session(bundle, "ov", RuntimeOptions(threads=1, hint="throughput"))
    assert session.info.engine.startswith("openvino 20")
    assert (session.info.device, session.info.precision, session.info.threads) == ("CPU", "fp32", 1)
    assert [(t.name, t.shape, t.dtype) for t in session.inputs] == [("image", (1, 32, 48, 3), "uint8")]
    assert [(t.name, t.shape, t.dtype) for t in session.outputs] == [("logits", (1, 4, 4, 6), "float32")]


def test_outputs_belong_to_the_caller(bundle: Bundle) -> None:
    session = open_session(bundle, "openvino")
    first = session.run(picture()[None])["logits"]
    kept = first.copy()
    second = session.run(picture(seed=9)[None])["logits"]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)


def test_a_dynamic_graph_takes_any_size(tmp_path: Path) -> None:
    session = open_session(make_tiny_bundle(tmp_path, targets=("openvino",), dynamic=True), "openvino")
    assert session.inputs[0].shape == (1, None, None, 3)
    assert session.run(picture((64, 40))[None])["logits"].shape == (1, 4, 8, 5)


def _cached(bundle: Bundle, cache: Path) -> Session:
    return open_session(bundle, "openvino", RuntimeOptions(cache_dir=str(cache)))


def _blobs(cache: Path) -> list[Path]:
    return sorted(file for folder in cache.iterdir() if folder.is_dir() for file in folder.iterdir())


def test_a_compiled_graph_is_kept_and_loaded(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b"
    first = _cached(bundle, cache)
    (blob,) = _blobs(cache)
    before = blob.stat()
    second = _cached(bundle, cache)
    assert _blobs(cache) == [blob]
    assert blob.stat().st_mtime_ns == before.st_mtime_ns
    assert (first.info.notes, second.info.notes) == ((), ())
    image = picture()[None]
    np.testing.assert_array_equal(first.run(image)["logits"], second.run(image)["logits"])


def test_settings_and_models_have_compiled_graphs_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path, targets=("openvino",), seed=1)
    cache, plain = tmp_path / "cache", RuntimeOptions(cache_dir=str(tmp_path / "cache"))
    for options in (plain, replace(plain, threads=1), replace(plain, hint="throughput")):
        open_session(bundle, "openvino", options)
    open_session(other, "openvino", plain)
    assert len({blob.parent for blob in _blobs(cache)}) == 4


def test_a_damaged_compiled_graph_never_runs(bundle: Bundle, tmp_path: Path) -> None:
    """OpenVINO by itself loads some of these without a word, and computes other numbers."""
    image = picture()[None]
    wanted = open_session(bundle, "openvino").run(image)["logits"]
    _cached(bundle, tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        (blob,) = _blobs(tmp_path)
        data = bytearray(blob.read_bytes())
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] ^= int(rng.integers(1, 256))
        blob.chmod(0o600)
        blob.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.1 else data)
        session = _cached(bundle, tmp_path)
        np.testing.assert_array_equal(session.run(image)["logits"], wanted)
        (note,) = session.info.notes
        assert "was damaged (its SHA-256 differs); it was removed and the graph compiled anew" in note
    assert _cached(bundle, tmp_path).info.notes == ()


def test_a_cache_that_cannot_be_used_is_said(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    session = _cached(bundle, tmp_path / "file")
    assert "is no folder and was not used" in session.info.notes[0]
    assert session.run(picture()[None])["logits"].shape == (1, 4, 4, 6)


def test_a_device_that_is_missing_names_those_there(bundle: Bundle) -> None:
    with pytest.raises(TargetUnavailableError, match=r"no device GPU\.7 on this machine \(it has CPU"):
        open_session(bundle, "openvino", RuntimeOptions(device="GPU.7"))


def test_auto_is_a_device(bundle: Bundle) -> None:
    session = open_session(bundle, "openvino", RuntimeOptions(device="auto"))
    assert "CPU" in session.info.device or "GPU" in session.info.device or "NPU" in session.info.device


def test_unknown_words_are_refused(bundle: Bundle) -> None:
    with pytest.raises(UnknownNameError, match="unknown OpenVINO precision 'fp8'"):
        open_session(bundle, "openvino", RuntimeOptions(precision="fp8"))
    with pytest.raises(UnknownNameError, match="unknown OpenVINO hint 'latancy': did you mean 'latency'"):
        open_session(bundle, "openvino", RuntimeOptions(hint="latancy"))
    with pytest.raises(UsageError, match="openvino target has no use for weights='x'"):
        open_session(bundle, "openvino", RuntimeOptions(weights="x"))


def test_a_bundle_of_another_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no openvino/model\.xml: it was exported for ort"):
        open_session(make_tiny_bundle(tmp_path), "openvino")


def test_a_damaged_graph_is_a_bundle_error(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("openvino",))
    file = bundle.path / OPENVINO_MODEL
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(BundleError, match=r"OpenVINO cannot read '.*model\.xml'.*copy or export"):
        open_session(bundle, "openvino")


def test_what_openvino_quotes_of_a_damaged_file_may_be_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        available_devices = ("CPU",)

        def read_model(self, *files: str) -> None:
            b"\xa5".decode("utf-8")

    monkeypatch.setattr("edgeseg.runtimes.openvino.session.shared_core", Core)
    bundle = make_tiny_bundle(tmp_path, targets=("openvino",))
    with pytest.raises(BundleError, match=r"OpenVINO cannot read '.*model\.xml' .*can't decode byte.*copy or export"):
        open_session(bundle, "openvino")


def test_converting_something_else_is_an_export_error(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"no graph")
    with pytest.raises(ExportError, match="OpenVINO cannot convert"):
        convert(file, tmp_path / "model.xml")


def test_running_after_close_is_refused(bundle: Bundle) -> None:
    session = open_session(bundle, "openvino")
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run(picture()[None])


DROPPED_ELSEWHERE = """
import os, signal, sys, threading, time
from pathlib import Path
from edgeseg.bundle import open_bundle
from edgeseg.runtimes import open_session

bundle = open_bundle(sys.argv[1])
held = [open_session(bundle, "openvino") for _ in range(2)]
dropping = threading.Thread(target=lambda: [held.pop().close() for _ in range(2)])
dropping.start()
dropping.join()
kept = [bytearray(11568) for _ in range(2000)]  # over whatever was freed
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_after_the_last_session_was_closed_in_another_thread(bundle: Bundle) -> None:
    """OpenVINO's CPU plugin freed the stack that the main thread's signal handlers ran on."""
    command = [sys.executable, "-c", DROPPED_ELSEWHERE, str(bundle.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
