"""ONNX Runtime behind the seam: exact numbers, the provider that was asked for, and no other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from edgeseg.bundle import MODEL, Bundle
from edgeseg.errors import BundleError, EdgesegError, InputError, TargetUnavailableError, UsageError
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.ort.session import PROVIDERS, resolve_provider
from edgeseg.specs import InputSpec
from tests.runtimes.bundles import STRIDE, make_tiny_bundle, picture, tiny_weights

#: Largest difference of logits of the tiny network (range about 40) between two float32 engines.
TOLERANCE = 2e-5

SPECS = [
    InputSpec(std=(50.0, 50.0, 50.0)),
    InputSpec.imagenet("bgr"),
    InputSpec("rgb", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 1 / 25),
]


def plain_logits(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """The tiny network in PyTorch, written out: uint8 (1, H, W, 3) RGB -> float32 (1, 4, h, w)."""
    ordered = image[..., ::-1] if spec.channel_order == "bgr" else image
    x = (ordered.astype(np.float64) - spec.mean) / spec.std * spec.scale
    weights = tiny_weights(4)
    planes = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    kernel, bias = (torch.from_numpy(weights[key].astype(np.float64)) for key in ("conv.weight", "conv.bias"))
    found = torch.nn.functional.conv2d(planes, kernel, bias, stride=STRIDE, padding=1)
    return found.numpy().astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("ort"), spec=SPECS[0])


@pytest.mark.parametrize("spec", SPECS)
def test_logits_are_those_of_the_network(tmp_path: Path, spec: InputSpec) -> None:
    session = open_session(make_tiny_bundle(tmp_path, spec=spec), "ort")
    image = picture()[None]
    np.testing.assert_allclose(session.run(image)["logits"], plain_logits(image, spec), rtol=0, atol=TOLERANCE)


def test_info_is_what_runs(bundle: Bundle) -> None:
    session = open_session(bundle, "onnxruntime", RuntimeOptions(threads=1))
    assert session.info.engine == f"onnxruntime {onnxruntime.__version__}"
    assert (session.info.target, session.info.device, session.info.threads) == ("ort", "CPUExecutionProvider", 1)
    assert (session.info.precision, session.info.notes) == ("fp32", ())
    assert [(t.name, t.shape, t.dtype) for t in session.inputs] == [("image", (1, 32, 48, 3), "uint8")]
    assert [(t.name, t.shape, t.dtype) for t in session.outputs] == [("logits", (1, 4, 4, 6), "float32")]


def test_a_dynamic_graph_takes_any_size(tmp_path: Path) -> None:
    session = open_session(make_tiny_bundle(tmp_path, dynamic=True), "ort")
    assert session.inputs[0].shape == (1, None, None, 3)
    assert session.run(picture((64, 40))[None])["logits"].shape == (1, 4, 8, 5)


def test_runs_may_overlap(bundle: Bundle) -> None:
    session = open_session(bundle, "ort", RuntimeOptions(threads=1))
    images = [picture(seed=seed)[None] for seed in range(8)]
    wanted = [session.run(image)["logits"] for image in images]
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        found[index] = session.run(images[index])["logits"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, logits in enumerate(wanted):
        np.testing.assert_array_equal(found[index], logits)


@pytest.mark.parametrize("word", ["cuda", "CUDA", "CUDAExecutionProvider", "cudaexecutionprovider"])
def test_words_for_a_provider(word: str) -> None:
    assert resolve_provider(word, ("CUDAExecutionProvider", "CPUExecutionProvider")) == "CUDAExecutionProvider"


def test_a_provider_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(TargetUnavailableError, match=r"no CUDAExecutionProvider \(it has CPU.*onnxruntime-gpu"):
        resolve_provider("cuda", ("CPUExecutionProvider",))
    with pytest.raises(TargetUnavailableError, match=r"no NewExecutionProvider.*an onnxruntime built with it"):
        resolve_provider("NewExecutionProvider", ("CPUExecutionProvider",))


def test_a_device_that_means_nothing() -> None:
    with pytest.raises(UsageError, match="device 'gpu' means no ONNX Runtime provider; use cpu, cuda"):
        resolve_provider("gpu", tuple(PROVIDERS.values()))


def test_falling_back_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime built for CUDA on a machine without it: it lists the provider and then uses the CPU."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    create = onnxruntime.InferenceSession

    def falls_back(graph: str, settings: object, **ignored: object) -> Any:
        return create(graph, settings, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", falls_back)
    with pytest.raises(TargetUnavailableError, match=r"CUDAExecutionProvider did not start.*fell back to CPUExecution"):
        open_session(bundle, "ort", RuntimeOptions(device="cuda"))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_fails_to_start_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])

    def fails(*ignored: object, **others: object) -> None:
        raise RuntimeError("libcublas.so.12: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(TargetUnavailableError, match=r"did not start on this machine \(libcublas"):
        open_session(bundle, "ort", RuntimeOptions(device="cuda"))


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\xff" * 99])
def test_a_damaged_graph_is_a_bundle_error(tmp_path: Path, damage: Any) -> None:
    bundle = make_tiny_bundle(tmp_path)
    file = bundle.path / MODEL
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BundleError, match=r"cannot read.*copy or export the bundle again"):
        open_session(bundle, "ort")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (RuntimeOptions(hint="latency"), "hint='latency'"),
        (RuntimeOptions(precision="f32"), "precision='f32'"),
        (RuntimeOptions(cache_dir="x"), "cache_dir='x'"),
        (RuntimeOptions(weights="x"), "weights='x'"),
    ],
)
def test_options_it_has_no_use_for_are_refused(bundle: Bundle, options: RuntimeOptions, named: str) -> None:
    with pytest.raises(UsageError, match=f"the ort target has no use for {named}; leave it out"):
        open_session(bundle, "ort", options)


def test_threads_must_be_positive(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="threads is 0; it must be at least 1"):
        open_session(bundle, "ort", RuntimeOptions(threads=0))


def test_input_is_checked(bundle: Bundle) -> None:
    session = open_session(bundle, "ort")
    with pytest.raises(InputError, match=r"takes uint8 1x32x48x3.*got uint8 1x16x48x3"):
        session.run(picture((16, 48))[None])
    floats: Any = picture()[None].astype(np.float32)
    with pytest.raises(InputError, match="got float32"):
        session.run(floats)
    with pytest.raises(InputError, match="has outputs logits, asked for masks"):
        session.run(picture()[None], ("masks",))


def test_closing_twice_is_harmless_and_running_after_it_is_not(bundle: Bundle) -> None:
    session = open_session(bundle, "ort")
    session.close()
    session.close()
    with pytest.raises(EdgesegError, match="closed"):
        session.run(picture()[None])
