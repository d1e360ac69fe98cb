"""Labels that are made on the device: the Predictor's are those of ONNX Runtime and the host's postprocessing."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg import Predictor
from edgeseg.bundle import Bundle
from edgeseg.errors import InputError, UsageError
from edgeseg.export.reference import ParitySet
from edgeseg.export.verify import verify_target
from edgeseg.postprocess import labels_from_logits
from edgeseg.runtimes import RuntimeOptions, device_labelling, open_session
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.label_kernel import DeviceLogits, LabelKernel, Labelling
from edgeseg.runtimes.tensorrt.session import EngineSession
from edgeseg.specs import ResizeRule
from tests.runtimes.bundles import make_tiny_bundle, picture
from tests.runtimes.fakes import FakeTensorRT

pytestmark = pytest.mark.usefixtures("tensorrt")

BUNDLES: dict[str, dict[str, Any]] = {
    "plain": {},
    "align_corners": {"align_corners": True},
    "one logit": {"num_classes": 1, "threshold": 0.5},
    "300 classes": {"num_classes": 300},
    "letterbox": {"resize": ResizeRule("letterbox", pad_value=(114, 114, 114))},
}


def open_predictor(bundle: Bundle, folder: Path, **settings: Any) -> Predictor:
    """A Predictor on the fake GPU, with its plans in `folder`."""
    return Predictor(bundle, "trt", options=RuntimeOptions(cache_dir=str(folder / "plans")), **settings)


@pytest.mark.parametrize("output", ["source", "network", (50, 33)])
@pytest.mark.parametrize("kind", BUNDLES)
def test_labels_of_any_size_are_made_on_the_device(
    tmp_path: Path, tensorrt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, kind: str, output: Any
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"), **BUNDLES[kind])
    images = [picture(size, seed) for seed, size in enumerate(((32, 48), (70, 50), (7, 90), (70, 50)))]
    with Predictor(bundle, output=output) as host:
        wanted = [host(image).labels for image in images]
    monkeypatch.setattr("edgeseg.predictor.finish.labels_from_logits", None)  # nothing is left for the host
    with open_predictor(bundle, tmp_path, output=output) as device:
        got = [device(image).labels for image in images]
    for one, other in zip(wanted, got, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(wanted[0])) > 1


def test_many_sizes_keep_little_on_the_device(tmp_path: Path, fake_gpu: ctypes.CDLL) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with Predictor(bundle) as host, open_predictor(bundle, tmp_path) as device:
        for height in range(20, 40):
            image = picture((height, 60))
            np.testing.assert_array_equal(host(image).labels, device(image).labels)
        held = fake_gpu.fake_live()
        device(picture((70, 60)))
        assert fake_gpu.fake_live() == held


def test_a_bundle_of_free_sizes_labels_every_size_on_the_device(
    tmp_path: Path, tensorrt: FakeTensorRT, fake_gpu: ctypes.CDLL
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"), dynamic=True, resize=ResizeRule("none"))
    with Predictor(bundle) as host, open_predictor(bundle, tmp_path) as device:
        for seed, size in enumerate(((32, 48), (64, 96), (16, 24), (64, 96), (8, 8))):
            image = picture(size, seed)
            np.testing.assert_array_equal(host(image).labels, device(image).labels)
        with pytest.raises(InputError, match="does not take a size of 128x128: it was built for 8x8 to 64x96"):
            device(picture((128, 128)))
        assert device(picture((32, 48))).size == (32, 48)
    assert tensorrt.profiles == [("image", (1, 8, 8, 3), (1, 32, 48, 3), (1, 64, 96, 3))]
    assert fake_gpu.fake_live() == 0


@pytest.mark.parametrize("right", [True, False])
def test_an_export_on_a_machine_with_a_gpu_proves_the_labels_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    image = picture()
    with open_session(bundle, "ort") as host:  # type: ignore[attr-defined]
        logits = host.run(image[None])["logits"][0]
    labels = labels_from_logits(logits, (32, 48), postprocess=bundle.manifest.postprocess)
    if not right:
        monkeypatch.setattr(Labelling, "take", lambda self: [np.full((32, 48), 3, np.uint8)])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = verify_target("trt", bundle, ParitySet((image,), (logits,), (labels,)))
    assert (found.ran, found.pixels, found.max_logit_error) == (True, 32 * 48, 0.0)
    assert found.differing == (0 if right else int((labels != 3).sum()))
    assert right is (found.differing == 0)


def test_scores_are_made_on_the_host(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with Predictor(bundle, scores=True) as host, open_predictor(bundle, tmp_path, scores=True) as device:
        wanted, got = host(picture((50, 70))), device(picture((50, 70)))
    np.testing.assert_array_equal(wanted.labels, got.labels)
    assert wanted.scores is not None
    np.testing.assert_array_equal(wanted.scores, got.scores)


def test_a_driver_that_does_not_take_the_kernel_leaves_the_labels_to_the_host_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    image = picture((50, 70))
    with Predictor(bundle) as host:
        wanted = host(image).labels
    ptx = tmp_path / "labels.ptx"
    ptx.write_text("of tomorrow")
    monkeypatch.setattr("edgeseg.runtimes.tensorrt.label_kernel.PTX", ptx)
    with open_predictor(bundle, tmp_path) as device:
        assert "labels are made on the host" in device.info.notes[-1]
        assert "CUDA_ERROR_INVALID_PTX" in device.info.notes[-1]
        np.testing.assert_array_equal(device(image).labels, wanted)


def test_logits_that_are_not_finite_are_refused_as_on_the_host(tmp_path: Path, tensorrt: FakeTensorRT) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with open_predictor(bundle, tmp_path) as device:
        device(picture((50, 70)))
        tensorrt.poison = float("nan")
        with pytest.raises(UsageError, match="the logits hold NaN or infinity"):
            device(picture((50, 70)))
        tensorrt.poison = None
        device(picture((50, 70)))


def test_a_session_that_labels_on_its_device_says_so_and_checks_what_it_gets(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    with open_session(bundle, "ort") as host:  # type: ignore[attr-defined]
        assert device_labelling(host) is None
        with pytest.raises(UsageError, match="ort target does not label on its device"):
            host.device_labels(picture()[None], [((8, 8), None)])
    session = open_session(bundle, "trt", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert isinstance(session, EngineSession)
    assert device_labelling(session) is session
    with pytest.raises(InputError, match="the graph takes uint8 1x32x48x3"):
        session.device_labels(picture((8, 8))[None], [((8, 8), None)])
    with pytest.raises(UsageError, match="must be at least 1"):
        session.device_labels(picture()[None], [((0, 8), None)])
    session.close()


@pytest.mark.gpu
def test_a_real_gpu_labels_as_the_host_does(real_gpu: cuda.GpuInfo) -> None:
    """The kernel alone, on logits that the host puts there; it needs no TensorRT."""
    from edgeseg.specs import PostprocessSpec

    generator = np.random.default_rng(0)
    with cuda.open_device(str(real_gpu.ordinal)).current():
        stream = cuda.Stream()
        for dtype in ("float32", "float16"):
            for classes, align_corners in ((19, False), (1, True), (300, False)):
                logits = generator.normal(size=(1, classes, 32, 64)).astype(dtype)
                memory = cuda.Buffer(logits.nbytes)
                memory.write(logits, stream)
                postprocess = PostprocessSpec(align_corners)
                kernel = LabelKernel(postprocess)
                got = kernel.labels(DeviceLogits(memory, logits.shape, dtype), 0, (200, 333), None, stream)
                wanted = labels_from_logits(logits[0], (200, 333), postprocess=postprocess)
                np.testing.assert_array_equal(got, wanted)
                kernel.close()
                memory.close()
        stream.close()
