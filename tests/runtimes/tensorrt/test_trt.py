"""The TensorRT path from picture to outputs on a fake module and a fake GPU, and what it says without either."""

from __future__ import annotations

import ctypes
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeseg.bench import benchmark
from edgeseg.bench.report import BenchmarkReport
from edgeseg.bundle import Bundle
from edgeseg.errors import (
    BundleError,
    EdgesegError,
    ExportError,
    InputError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from edgeseg.graph.half import to_half
from edgeseg.graph.passes._base import apply_passes
from edgeseg.graph.qdq import named
from edgeseg.graph.run import run_graph
from edgeseg.postprocess import labels_from_logits
from edgeseg.predictor import Predictor
from edgeseg.runtimes import RuntimeOptions, engine, open_session
from edgeseg.runtimes.tensorrt.packages import GRAPH
from edgeseg.runtimes.tensorrt.passes.half import HalfLogits
from edgeseg.runtimes.tensorrt.session import EngineSession, graph_file
from tests.runtimes.bundles import make_tiny_bundle, picture, with_graph
from tests.runtimes.fakes import RUN_MS, FakeTensorRT, fake_tensorrt


def open_trt(folder: Path, *, dynamic: bool = False, precision: str | None = None) -> EngineSession:
    """A session on a fresh bundle, with its plans in `folder`."""
    bundle = make_tiny_bundle(folder, targets=("trt",), dynamic=dynamic)
    options = RuntimeOptions(cache_dir=str(folder / "plans"), precision=precision)
    session = open_session(bundle, "trt", options)
    assert isinstance(session, EngineSession)
    return session


def test_outputs_are_those_of_onnx_runtime(tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL) -> None:
    image = picture()[None]
    reference = open_session(make_tiny_bundle(tmp_path / "a"), "ort")
    wanted = reference.run(image)["logits"]
    reference.close()
    session = open_trt(tmp_path)
    got = session.run(image)
    np.testing.assert_array_equal(got["logits"], wanted)
    assert [tensor.name for tensor in session.outputs] == ["logits"]
    session.close()
    session.close()
    assert fake_gpu.fake_live() == 0


def test_logits_in_half_are_handed_out_as_float32_and_labelled_as_they_are(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    plain = make_tiny_bundle(tmp_path, targets=("trt",))
    half = apply_passes(to_half(named(onnx.load(plain.path / "model.onnx")), ()), [HalfLogits()])
    bundle = with_graph(plain, GRAPH, half)
    session = open_session(bundle, "trt", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    image = picture()[None]
    (wanted,) = run_graph(half, {"image": image})
    assert wanted.dtype == np.float16
    logits = session.run(image)["logits"]
    assert [(tensor.name, tensor.dtype) for tensor in session.outputs] == [("logits", "float32")]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, wanted.astype(np.float32), rtol=1e-3, atol=1e-3)
    session.close()
    with Predictor(bundle, "trt", options=RuntimeOptions(cache_dir=str(tmp_path / "plans"))) as predictor:
        labels = predictor(picture(), output="network").labels
    assert np.array_equal(labels, labels_from_logits(logits[0], (32, 48), postprocess=bundle.manifest.postprocess))
    assert fake_gpu.fake_live() == 0


def test_calls_come_in_order(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = open_trt(tmp_path)
    session.run(picture()[None])
    session.run(picture(seed=1)[None])
    addresses = [f"set_tensor_address {name}" for name in ("image", "logits")]
    timings = ["create_timing_cache", "set_timing_cache"]
    build = ["parse", *timings, "build", "serialize", "deserialize", "create_execution_context"]
    assert tensorrt.calls == [*build, "set_input_shape", *addresses, *["execute", "ran"] * 2]
    session.close()


def test_only_wanted_outputs_come_back_and_belong_to_the_caller(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = open_trt(tmp_path)
    first = session.run(picture()[None], ("logits",))
    kept = first["logits"].copy()
    second = session.run(picture(seed=5)[None], ("logits",))
    assert not np.array_equal(first["logits"], second["logits"])
    np.testing.assert_array_equal(first["logits"], kept)
    assert session.run(picture()[None], ()) == {}
    session.close()


def test_the_graph_decides_precision_and_tf32_is_off(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    exact = open_trt(tmp_path / "a")
    assert tensorrt.network_flags == 0b11  # explicit batch, strongly typed
    assert tensorrt.flags == set()
    assert exact.info.precision == "fp32"
    fast = open_trt(tmp_path / "b", precision="tf32")
    assert tensorrt.flags == {"TF32"}
    assert fast.info.precision == "tf32"
    exact.close()
    fast.close()


@pytest.mark.parametrize("version", ["8.5.2", "8.6.2", "9.3.0"])
def test_a_tensorrt_that_drops_the_axes_of_reductions_is_refused(
    tmp_path: Path, fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    module, record = fake_tensorrt(version=version, driver=fake_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(TargetUnavailableError, match=rf"TensorRT {version} is installed, .* needs 10\.0 or newer"):
        open_trt(tmp_path)
    probe = engine("trt").look()
    assert not probe.usable
    assert "needs 10.0 or newer" in probe.reason
    assert record.calls == []


@pytest.mark.parametrize(("version", "flags"), [("10.0.1", 0b11), ("10.16.1", 0b11), ("11.1.0", 0b10)])
def test_networks_are_strongly_typed_in_every_version(
    tmp_path: Path, fake_gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, version: str, flags: int
) -> None:
    module, record = fake_tensorrt(version=version, driver=fake_gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    session = open_trt(tmp_path)
    assert (record.network_flags, record.flags) == (flags, set())
    assert session.run(picture()[None])["logits"].shape == (1, 4, 4, 6)
    session.close()


def test_a_build_in_shared_memory_is_limited(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    open_trt(tmp_path).close()
    assert tensorrt.workspaces == [1 << 30]


@pytest.mark.parametrize("what", ["Builder", "Runtime"])
def test_cuda_that_does_not_start_is_one_sentence(tmp_path: Path, tensorrt: FakeTensorRT, what: str) -> None:
    tensorrt.refuse, tensorrt.words = {what}, "CUDA initialization failure with error: 35"
    with pytest.raises(TargetUnavailableError, match=r"TensorRT 10\.3\.0 does not start .*error: 35; look") as caught:
        open_trt(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("CUDA driver version is insufficient for CUDA runtime version", "newer NVIDIA driver .* serves CUDA 12.6"),
        ("CUDA initialization failure with error: 35", "newer NVIDIA driver"),
        ("Unsupported SM: 0x600", "does not support this GPU"),
    ],
)
def test_a_machine_that_no_engine_runs_on_is_not_a_bad_plan(
    tmp_path: Path, tensorrt: FakeTensorRT, words: str, said: str
) -> None:
    tensorrt.refuse, tensorrt.words = {"deserialize"}, words
    with pytest.raises(TargetUnavailableError, match=said):
        open_trt(tmp_path)
    assert tensorrt.calls.count("build") == 1


def test_a_failed_allocation_leaves_the_session_as_it_was(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    session = open_trt(tmp_path, dynamic=True)
    small, large = picture((32, 48))[None], picture((64, 96))[None]
    wanted = session.run(small)
    fake_gpu.fake_setup(1, ctypes.c_size_t(10_000))
    with pytest.raises(EdgesegError, match="no memory for"):
        session.run(large)
    again = session.run(small)
    fake_gpu.fake_setup(1, ctypes.c_size_t(1 << 30))
    for name, value in wanted.items():
        np.testing.assert_array_equal(again[name], value)
    assert session.run(large)["logits"].shape == (1, 4, 8, 12)
    session.close()


def test_memory_that_the_engine_does_not_take_is_told(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = open_trt(tmp_path)
    tensorrt.refuse = {"set_tensor_address"}
    with pytest.raises(EdgesegError, match="does not take memory for 'image': fake refusal"):
        session.run(picture()[None])
    tensorrt.refuse = set()
    assert session.run(picture()[None])["logits"].shape == (1, 4, 4, 6)
    session.close()


def test_what_is_not_fetched_has_no_memory_on_the_host(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    session = open_trt(tmp_path)
    session.run(picture()[None], ())
    nothing = fake_gpu.fake_live()
    session.run(picture()[None])
    assert fake_gpu.fake_live() == nothing + 1
    session.close()


def test_a_session_runs_and_closes_in_other_threads(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    session = open_trt(tmp_path)
    wanted = session.run(picture()[None])["logits"]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: session.run(picture()[None])["logits"], range(8)):
            np.testing.assert_array_equal(found, wanted)
        pool.submit(session.close).result()
    assert fake_gpu.fake_live() == 0


def test_opening_and_closing_again_keeps_the_context(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt",))
    for _ in range(5):
        session = open_session(bundle, "trt", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
        session.run(picture()[None])
        session.close()
        assert (fake_gpu.fake_retained(0), fake_gpu.fake_live()) == (1, 0)


def test_another_power_mode_builds_another_plan(tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL) -> None:
    """Boards of one name, capability and driver have other multiprocessors."""
    bundle = make_tiny_bundle(tmp_path, targets=("trt",))
    for count in (8, 4, 8):
        fake_gpu.fake_multiprocessors(count)
        open_session(bundle, "trt", RuntimeOptions(cache_dir=str(tmp_path / "plans"))).close()
    assert tensorrt.calls.count("build") == 2


def test_the_plan_is_built_once(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt",))
    options = RuntimeOptions(cache_dir=str(tmp_path / "plans"))
    for _ in range(2):
        session = open_session(bundle, "trt", options)
        assert (session.info.device, session.info.notes) == ("Fake A, sm_87", ())
        session.close()
    assert tensorrt.calls.count("build") == 1


def test_a_dynamic_graph_gets_a_profile_and_grows(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    session = open_trt(tmp_path, dynamic=True)
    assert tensorrt.profiles == [("image", (1, 8, 8, 3), (1, 32, 48, 3), (1, 64, 96, 3))]
    for size in ((32, 48), (64, 96), (16, 24)):
        assert session.run(picture(size)[None])["logits"].shape == (1, 4, size[0] // 8, size[1] // 8)
    with pytest.raises(InputError, match="does not take a size of 128x128: it was built for 8x8 to 64x96"):
        session.run(picture((128, 128))[None])
    assert session.run(picture((32, 48))[None])["logits"].shape == (1, 4, 4, 6)
    session.close()
    assert fake_gpu.fake_live() == 0


def test_the_engine_alone_is_timed_each_way(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = open_trt(tmp_path)
    times = session.engine_times(picture()[None], 4)
    assert times.single == pytest.approx([RUN_MS] * 4)
    assert times.queued == pytest.approx(RUN_MS)
    assert len(times.enqueue) == 4
    assert min(times.enqueue) > 0
    assert tensorrt.calls.count("execute") == 1 + 4 + 4
    assert "1.500 ms queued, 1.500 ms one by one" in times.line()
    with pytest.raises(UsageError, match="repeat is 0; time at least 1 run"):
        session.engine_times(picture()[None], 0)
    with pytest.raises(InputError, match="the graph takes uint8"):
        session.engine_times(picture((8, 8))[None], 1)
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.engine_times(picture()[None], 1)


def test_a_benchmark_tells_the_engine_s_time_from_the_frame_s(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    options = {"cache_dir": str(tmp_path / "plans"), "in_process": True, "seconds": 0.0, "warmup_frames": 0}
    report = benchmark(bundle, "trt", min_samples=3, **options)
    assert report.engine is not None
    assert len(report.engine.single) == 3
    assert report.engine.queued == pytest.approx(RUN_MS)
    again = BenchmarkReport.from_json(json.loads(json.dumps(report.to_json())))
    assert again.engine == report.engine
    assert again.session == report.session
    assert again.session.mode == ("zero copy", "CUDA graph")
    assert benchmark(bundle, "ort", in_process=True, min_samples=1, seconds=0.0, warmup_frames=0).engine is None


def test_a_graph_that_does_not_parse_quotes_the_node(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    tensorrt.refuse = {"parse"}
    with pytest.raises(ExportError, match=r"TensorRT 10\.3\.0 cannot parse 'model\.onnx': Conv conv_3: As"):
        open_trt(tmp_path)
    assert fake_gpu.fake_live() == 0


def test_a_build_that_fails_quotes_the_log(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    tensorrt.refuse = {"build"}
    with pytest.raises(ExportError, match=r"cannot build an engine of 'model\.onnx': fake refusal in build"):
        open_trt(tmp_path)


def test_a_run_that_fails_quotes_the_log(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = open_trt(tmp_path)
    tensorrt.refuse = {"execute"}
    with pytest.raises(EdgesegError, match=r"tensorrt 10\.3\.0 failed to run the engine: fake refusal in execute"):
        session.run(picture()[None])
    session.close()


def test_a_closed_session_refuses(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    session = open_trt(tmp_path)
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run(picture()[None])


def test_without_tensorrt_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle = make_tiny_bundle(tmp_path, targets=("trt",))
    with pytest.raises(TargetUnavailableError, match=r"trt target needs the package tensorrt.*JetPack"):
        open_session(bundle, "trt")


@pytest.mark.usefixtures("tensorrt", "no_gpu")
def test_without_a_gpu_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="no NVIDIA driver"):
        open_session(make_tiny_bundle(tmp_path, targets=("trt",)), "trt")


def test_options_it_has_no_use_for_are_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt",))
    with pytest.raises(UsageError, match="trt target has no use for threads=2"):
        open_session(bundle, "trt", RuntimeOptions(threads=2))
    with pytest.raises(UnknownNameError, match="unknown TensorRT precision 'f16'"):
        open_session(bundle, "trt", RuntimeOptions(precision="f16"))


def test_a_bundle_that_was_never_exported_for_a_gpu_is_refused(tmp_path: Path) -> None:
    for target in ("trt", "trt-rtx"):
        bundle = make_tiny_bundle(tmp_path, name=f"for_{target}")
        with pytest.raises(BundleError, match="was exported for ort; export it again with --target trt or trt-rtx"):
            graph_file(bundle)


def test_the_graph_in_their_own_form_is_taken_where_the_bundle_holds_it(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt", "trt-rtx"))
    assert graph_file(bundle) == "model.onnx"
    files = {**bundle.manifest.files, "tensorrt/model.onnx": "0" * 64}
    assert graph_file(Bundle(bundle.path, replace(bundle.manifest, files=files))) == "tensorrt/model.onnx"
