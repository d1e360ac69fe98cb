"""Networks that end in a softmax or sigmoid, exported: labels and scores are numpy's of PyTorch's own output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgeseg import export_model
from edgeseg.errors import ExportError, UsageError
from edgeseg.export.report import ExportReport
from edgeseg.models import custom_spec
from edgeseg.predictor import Predictor
from edgeseg.results import Result
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, Size
from tests.runtimes.bundles import picture

SIZE = (32, 48)
F64 = NDArray[np.float64]
End = Callable[[Tensor, Size], Any]


class _Net(nn.Module):
    """Logits at stride 4, and what follows them."""

    def __init__(self, channels: int, end: End) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 1))
        self.end = end
        for tensor in self.parameters():
            tensor.data.normal_(std=0.5, generator=generator)

    def forward(self, image: Tensor) -> Any:
        return self.end(self.stem(image), (image.shape[2], image.shape[3]))


def _up(logits: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def _exported(end: End, channels: int, out: Path, *, resize: str = "stretch", **options: Any) -> ExportReport:
    spec = custom_spec("mine", input=InputSpec.imagenet(), resize=ResizeRule(resize))  # type: ignore[arg-type]
    return export_model(_Net(channels, end), size=SIZE, spec=spec, out=out, **options)


def _returned(end: End, channels: int, image: NDArray[np.uint8]) -> F64:
    """What PyTorch returns, at the picture's size."""
    spec = InputSpec.imagenet()
    pixels = (image.astype(np.float64) - spec.mean) / spec.std
    with torch.inference_mode():
        found = _Net(channels, end)(torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float())
    return np.asarray(found[0] if isinstance(found, Tensor) else found["out"][0], np.float64)


def _check(result: Result, returned: F64, *, atol: float = 1e-5) -> None:
    """Compare labels, but for pixels where two are level, and scores."""
    if len(returned) == 1:
        returned = np.concatenate((1 - returned, returned))
    ordered = np.sort(returned, axis=0)
    clear = ordered[-1] - ordered[-2] > 2 * atol
    assert np.array_equal(result.labels[clear], returned.argmax(axis=0)[clear])
    assert len(np.unique(result.labels)) > 1
    assert result.scores is not None
    np.testing.assert_allclose(result.scores, ordered[-1], atol=atol)


ENDS: dict[str, tuple[int, str, End]] = {
    "softmax of the resized": (4, "softmax", lambda y, size: _up(y, size).softmax(1)),
    "resized softmax": (4, "softmax", lambda y, size: _up(y.softmax(1), size)),
    "resized softmax with aligned corners": (4, "softmax", lambda y, size: _up(y.softmax(1), size, align_corners=True)),
    "softmax of the resized, nested": (3, "softmax", lambda y, size: {"aux": y.mean(), "out": _up(y, size).softmax(1)}),
    "sigmoid of the resized": (4, "sigmoid", lambda y, size: _up(y, size).sigmoid()),
    "resized sigmoid": (4, "sigmoid", lambda y, size: _up(y.sigmoid(), size)),
    "one sigmoid of the resized": (1, "sigmoid", lambda y, size: _up(y, size).sigmoid()),
    "one resized sigmoid": (1, "sigmoid", lambda y, size: _up(y.sigmoid(), size, align_corners=True)),
    "the second of two": (2, "sigmoid", lambda y, size: _up(y.softmax(1), size)[:, 1:]),
    "one hard sigmoid, cut": (1, "sigmoid", lambda y, size: F.hardsigmoid(_up(y, size)).clamp(1e-4, 1 - 1e-4)),
}
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("resized softmax", {"batch": 2, "targets": ("ort", "openvino")}),
    ("one resized sigmoid", {"output": "labels", "targets": ("ort", "openvino")}),
    ("sigmoid of the resized", {"dynamic": True}),
    ("the second of two", {"rewrites": False, "fuse": False}),
]


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in ENDS), *FORMS])
def test_scores_are_the_values_of_pytorch(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    channels, activation, end = ENDS[name]
    report = _exported(end, channels, tmp_path, **options)
    assert report.bundle.manifest.postprocess.activation == activation
    assert all(parity.differing <= 1 for parity in report.parity)
    images = [picture(SIZE, seed) for seed in range(3)]
    for target in report.bundle.manifest.targets:
        with Predictor(report.path, target=target, scores=True, threads=1) as predictor:
            for image, result in zip(images, predictor.predict_batch(images), strict=True):
                _check(result, _returned(end, channels, image))


@pytest.mark.parametrize("name", ["softmax of the resized", "one sigmoid of the resized"])
def test_bars_of_a_letterbox_are_cut_off(name: str, tmp_path: Path) -> None:
    channels, _, end = ENDS[name]
    report = _exported(end, channels, tmp_path, resize="letterbox")
    with Predictor(report.path, scores=True, threads=1) as predictor:
        image = picture((16, 48), 3)
        padded = np.pad(image, ((8, 8), (0, 0), (0, 0)))
        _check(predictor(image), _returned(end, channels, padded)[:, 8:24])


@pytest.mark.parametrize("channels", [1, 4])
def test_logits_and_their_own_softmax_have_the_same_scores(channels: int, tmp_path: Path) -> None:
    def probability(y: Tensor, size: Size) -> Tensor:
        return _up(y, size).softmax(1) if channels > 1 else _up(y, size).sigmoid()

    report = _exported(lambda y, size: _up(y, size), channels, tmp_path)
    assert report.bundle.manifest.postprocess == PostprocessSpec()
    with Predictor(report.path, scores=True, threads=1) as predictor:
        image = picture(SIZE, 1)
        _check(predictor(image), _returned(probability, channels, image))


def test_logarithms_of_probabilities_are_logits(tmp_path: Path) -> None:
    report = _exported(lambda y, size: _up(y, size).log_softmax(1), 4, tmp_path)
    assert not [note for note in report.notes if "channels" in note]
    with Predictor(report.path, scores=True, threads=1) as predictor:
        image = picture(SIZE, 2)
        _check(predictor(image), _returned(lambda y, size: _up(y, size).softmax(1), 4, image))


def test_one_hot_labels_are_exact(tmp_path: Path) -> None:
    def one_hot(y: Tensor, size: Size) -> Tensor:
        return F.one_hot(_up(y, size).argmax(1), 4).permute(0, 3, 1, 2).float()

    report = _exported(one_hot, 4, tmp_path)
    assert any("one-hot" in note for note in report.notes)
    with Predictor(report.path, scores=True, threads=1) as predictor:
        image = picture(SIZE, 2)
        _check(predictor(image), _returned(one_hot, 4, image))


@pytest.fixture(scope="module")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("calib")
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(SIZE, seed))
    return folder


@pytest.mark.parametrize(
    ("name", "precision", "atol"), [("resized softmax", "fp16", 2e-3), ("one resized sigmoid", "int8", 0.15)]
)
def test_low_precisions_keep_the_activation(
    name: str, precision: str, atol: float, calib: Path, tmp_path: Path
) -> None:
    channels, activation, end = ENDS[name]
    report = _exported(end, channels, tmp_path, precision=precision, calib=calib, force=True)
    assert report.bundle.manifest.precision == precision
    assert report.bundle.manifest.postprocess.activation == activation
    with Predictor(report.path, scores=True, threads=1) as predictor:
        image = picture(SIZE, 9)
        _check(predictor(image), _returned(end, channels, image), atol=atol)


def test_what_the_user_says_is_in_the_bundle(tmp_path: Path) -> None:
    def end(y: Tensor, size: Size) -> Tensor:
        return _up(y, size).sigmoid() * 0.5 + 0.25

    with pytest.raises(ExportError, match=r"give --threshold 0\.5"):
        _exported(end, 1, tmp_path)
    with pytest.raises(UsageError, match="unknown activation 'relu': known are none, sigmoid, softmax"):
        _exported(end, 1, tmp_path, activation="relu")
    report = _exported(end, 1, tmp_path, activation="sigmoid", threshold=0.4)
    assert report.bundle.manifest.postprocess == PostprocessSpec(threshold=0.4, activation="sigmoid")
    with Predictor(report.path, scores=True, threads=1) as predictor:
        image = picture(SIZE, 1)
        result, returned = predictor(image), _returned(end, 1, image)[0]
    labels = returned > 0.4
    assert np.array_equal(result.labels, labels)
    assert result.scores is not None
    np.testing.assert_allclose(result.scores, np.where(labels, returned, 1 - returned), atol=1e-5)


def test_graphs_that_end_in_labels_take_the_threshold(tmp_path: Path) -> None:
    """Of TensorRT's form, run in ONNX Runtime: the engine needs a GPU."""
    import onnxruntime

    _, _, end = ENDS["one sigmoid of the resized"]
    report = _exported(end, 1, tmp_path, targets=("ort", "trt"), output="labels")
    graph = report.path / "labels" / "gpu.onnx"
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    for seed in range(3):
        image = picture(SIZE, seed)
        returned = _returned(end, 1, image)[0]
        labels = np.asarray(session.run(["labels"], {"image": image[None]})[0])
        clear = np.abs(returned - 0.5) > 1e-5
        assert np.array_equal(labels[0][clear], (returned > 0.5)[clear])
