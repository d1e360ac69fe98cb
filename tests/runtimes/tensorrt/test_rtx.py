"""TensorRT for RTX: engines are really built here, without a GPU; running them is refused in one sentence."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import edgeseg
from edgeseg.bundle import MODEL, Bundle, open_bundle, write_manifest
from edgeseg.errors import BundleError, ExportError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.files import sha256_of
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt import rtx as trt_rtx
from edgeseg.runtimes.tensorrt.build import Profile, logger_of
from edgeseg.runtimes.tensorrt.session import EngineSession
from tests.export.networks import tiny
from tests.runtimes.bundles import make_tiny_bundle, picture
from tests.runtimes.fakes import PLAN, FakeTensorRT


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings")


def with_engine(bundle: Bundle, engine: Path) -> Bundle:
    """The bundle with an engine file entered into its manifest."""
    files = {**bundle.manifest.files, engine.relative_to(bundle.path).as_posix(): sha256_of(engine)}
    write_manifest(bundle.path, replace(bundle.manifest, files=files))
    return open_bundle(bundle.path)


@pytest.mark.parametrize("num_classes", [4, 1])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_exported_graph_builds_without_a_gpu(
    tmp_path: Path, rtx: Any, num_classes: int, align_corners: bool
) -> None:
    bundle = make_tiny_bundle(
        tmp_path, targets=("trt-rtx",), num_classes=num_classes, align_corners=align_corners, threshold=0.5
    )
    report = trt_rtx.build_engine(bundle.file(MODEL), bundle.path / "tensorrt")
    assert report.version == rtx.__version__
    assert report.path == bundle.path / trt_rtx.engine_name(rtx.__version__)
    assert report.size == report.path.stat().st_size > 10_000


def test_a_dynamic_graph_builds_with_a_profile(tmp_path: Path, rtx: Any) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt-rtx",), dynamic=True)
    profile = Profile((1, 8, 8, 3), (1, 32, 48, 3), (1, 64, 96, 3))
    assert trt_rtx.build_engine(bundle.file(MODEL), tmp_path, profile=profile).size > 10_000
    with pytest.raises(ExportError, match=r"cannot build an engine of 'model\.onnx': .*optimization profile"):
        trt_rtx.build_engine(bundle.file(MODEL), tmp_path)


@pytest.mark.usefixtures("rtx")
def test_turing_must_be_asked_for(tmp_path: Path) -> None:
    graph = make_tiny_bundle(tmp_path, targets=("trt-rtx",)).file(MODEL)
    plain = trt_rtx.build_engine(graph, tmp_path / "plain").path.read_bytes()
    turing = trt_rtx.build_engine(graph, tmp_path / "turing", compute_capabilities=("7.5", "8.6"))
    assert turing.compute_capabilities == ("7.5", "8.6")
    assert turing.path.read_bytes() != plain
    with pytest.raises(UnknownNameError, match=r"unknown compute capability '8\.7'"):
        trt_rtx.build_engine(graph, tmp_path, compute_capabilities=("8.7",))


@pytest.mark.usefixtures("rtx")
def test_a_graph_it_refuses_is_named_with_the_node(tmp_path: Path) -> None:
    """uint8 may only enter a Cast: transposing it first is refused."""
    node = helper.make_node("Transpose", ["image"], ["labels"], name="turn", perm=[0, 3, 1, 2])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 3, 8, 8])
    model = helper.make_model(helper.make_graph([node], "g", [image], [labels]), ir_version=10)
    file = tmp_path / "bad.onnx"
    onnx.save(model, file)
    with pytest.raises(ExportError, match=r"TensorRT-RTX .* cannot parse 'bad\.onnx': Transpose turn: .*UInt8"):
        trt_rtx.build_engine(file, tmp_path)
    assert not list(tmp_path.glob("*.engine"))


@pytest.mark.usefixtures("rtx")
def test_there_is_one_logger_per_process(rtx: Any) -> None:
    assert logger_of(rtx) is logger_of(rtx)


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_running_without_a_gpu_is_refused_in_one_sentence(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt-rtx",))
    with pytest.raises(TargetUnavailableError, match="no NVIDIA driver") as caught:
        open_session(bundle, "trt-rtx")
    assert "\n" not in str(caught.value)


def test_without_the_package_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(TargetUnavailableError, match=r"pip install 'edgeseg\[tensorrt-rtx\]'"):
        trt_rtx.build_engine(tmp_path / "x.onnx", tmp_path)


def test_options_it_has_no_use_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trt-rtx target has no use for hint='latency'"):
        open_session(make_tiny_bundle(tmp_path, targets=("trt-rtx",)), "trt-rtx", RuntimeOptions(hint="latency"))


def fake_engine(bundle: Bundle, version: str) -> Bundle:
    """The bundle with a fake engine of `version`."""
    engine = bundle.path / trt_rtx.engine_name(version)
    engine.parent.mkdir(exist_ok=True)
    engine.write_bytes(PLAN + bundle.file(MODEL).read_bytes())
    return with_engine(bundle, engine)


def test_the_bundles_engine_is_used_where_it_fits(tmp_path: Path, fake_rtx: FakeTensorRT) -> None:
    bundle = fake_engine(make_tiny_bundle(tmp_path, targets=("trt-rtx",)), "1.7.1")
    session = open_session(bundle, "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert "build" not in fake_rtx.calls
    assert (session.info.engine, session.info.notes) == ("tensorrt-rtx 1.7.1", ())
    assert session.run(picture()[None])["logits"].shape == (1, 4, 4, 6)
    assert not list((tmp_path / "plans").glob("*.plan"))
    session.close()


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.6.0", "for TensorRT-RTX 1.6.0, installed is 1.7.1"), ("", "holds no TensorRT-RTX engine")],
)
def test_an_engine_that_does_not_fit_is_rebuilt_and_said(
    tmp_path: Path, fake_rtx: FakeTensorRT, version: str, said: str
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt-rtx",))
    bundle = fake_engine(bundle, version) if version else bundle
    session = open_session(bundle, "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert said in session.info.notes[0]
    assert fake_rtx.calls.count("build") == 1
    session.close()


def test_an_engine_the_gpu_refuses_is_rebuilt_and_said(tmp_path: Path, fake_rtx: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt-rtx",))
    engine = bundle.path / trt_rtx.engine_name("1.7.1")
    engine.parent.mkdir()
    engine.write_bytes(b"for another GPU")
    session = open_session(with_engine(bundle, engine), "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert "does not run on Fake A, sm_87" in session.info.notes[0]
    session.close()


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (4, "needs a newer NVIDIA driver"),
        (8 | 64, "needs a newer NVIDIA driver"),
        (2, "does not support this GPU"),
        (16, "needs more memory than the GPU has free"),
        (64, "CUDA fails on this machine"),
    ],
)
def test_a_machine_that_no_engine_runs_on_is_not_a_bad_plan(
    tmp_path: Path, fake_rtx: FakeTensorRT, bits: int, said: str
) -> None:
    bundle = fake_engine(make_tiny_bundle(tmp_path, targets=("trt-rtx",)), "1.7.1")
    fake_rtx.refuse, fake_rtx.diagnostics = {"deserialize"}, bits
    with pytest.raises(TargetUnavailableError, match=said):
        open_session(bundle, "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert "build" not in fake_rtx.calls


@pytest.mark.parametrize("bits", [1, 32])
def test_a_version_or_damage_is_the_engine_s_and_it_is_rebuilt(
    tmp_path: Path, fake_rtx: FakeTensorRT, bits: int
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("trt-rtx",))
    engine = bundle.path / trt_rtx.engine_name("1.7.1")
    engine.parent.mkdir()
    engine.write_bytes(b"of another version")
    fake_rtx.diagnostics = bits
    session = open_session(with_engine(bundle, engine), "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert fake_rtx.calls.count("build") == 1
    session.close()


class _FewCapabilities:
    NONE, CURRENT, SM75, SM89, SM120 = 0, 1, 75, 89, 120


def test_a_gpu_that_rtx_does_not_know_is_refused_with_advice(
    tmp_path: Path, fake_rtx: FakeTensorRT, fake_rtx_module: Any
) -> None:
    fake_rtx_module.ComputeCapability = _FewCapabilities
    bundle = make_tiny_bundle(tmp_path, targets=("trt-rtx",))
    said = r"does not know Fake A, sm_87: it runs on compute capability 7\.5, 8\.9, 12\.0; use the target trt"
    with pytest.raises(TargetUnavailableError, match=said):
        open_session(bundle, "trt-rtx")
    assert fake_rtx.calls == []


@pytest.mark.usefixtures("rtx", "fake_gpu")
def test_the_export_goes_on_where_the_driver_is_too_old(tmp_path: Path) -> None:
    """The real package, which needs no GPU to build, on a driver that it cannot start CUDA on."""
    report = edgeseg.export_model(tiny(), size=(32, 48), targets=("trt-rtx",), out=tmp_path, name="tiny")
    (entry,) = (entry for entry in report.parity if entry.target == "trt-rtx")
    assert not entry.ran
    assert (report.path / "tensorrt").is_dir()


def test_an_engine_is_code_and_taken_with_its_hash_only(tmp_path: Path, fake_rtx: FakeTensorRT) -> None:
    bundle = fake_engine(make_tiny_bundle(tmp_path, targets=("trt-rtx",)), "1.7.1")
    with (bundle.path / trt_rtx.engine_name("1.7.1")).open("ab") as stream:
        stream.write(b"more")
    unchecked = open_bundle(bundle.path, check=False)
    with pytest.raises(BundleError, match=r"rtx-1\.7\.1\.engine .* is not the file that was exported"):
        open_session(unchecked, "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert "load" not in fake_rtx.calls


@pytest.mark.gpu
@pytest.mark.usefixtures("rtx")
def test_a_real_gpu_gives_onnx_runtimes_labels(tmp_path: Path, real_gpu: cuda.GpuInfo) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt-rtx"))
    image = picture()[None]
    wanted = open_session(bundle, "ort").run(image)["logits"]
    session = open_session(bundle, "trt-rtx", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert isinstance(session, EngineSession)
    got = session.run(image)
    np.testing.assert_allclose(got["logits"], wanted, rtol=0, atol=1e-3 * float(np.ptp(wanted)))
    assert session.device_labels(image, [((32, 48), None)])[0].shape == (32, 48)
    assert min(session.engine_times(image, 5).single) > 0.0
    assert real_gpu.name in session.info.device
    session.close()
