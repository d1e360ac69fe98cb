"""A Predictor on an engine whose answers are known, and what its results must be."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import Manifest
from edgeseg.errors import (
    EdgesegError,
)
from edgeseg.images import fit_image
from edgeseg.labels import LabelMap
from edgeseg.postprocess import labels_from_logits
from edgeseg.predictor import Failure, Predictor
from edgeseg.results import Result
from edgeseg.runtimes import SessionInfo, TensorInfo
from edgeseg.runtimes._base import SessionBase
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, Size

if TYPE_CHECKING:
    from edgeseg.runtimes._base import LabelRequest

NET = (32, 48)
POSTPROCESS = PostprocessSpec()

Fake = Callable[..., tuple[Predictor, "FakeSession"]]


class FakeSession(SessionBase):
    """Logits are every fourth pixel's channels; labels of the device, where it makes them, are 9 everywhere."""

    def __init__(self, manifest: Manifest, *, labels: bool = False) -> None:
        height, width = (None, None) if manifest.dynamic else manifest.input_size
        self.inputs = (TensorInfo("image", (manifest.batch, height, width, 3), "uint8"),)
        self.outputs = (TensorInfo("logits", (manifest.batch, 3, None, None), "float32"),)
        self.labels_on_device = labels
        self.info = SessionInfo("ort", "fake 1.0", "nowhere", "fp32")
        self.calls: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
        self.wanted: list[LabelRequest] = []
        self.hold = threading.Event()
        self.hold.set()

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        assert self.hold.wait(10)
        self.calls.append((image.shape, names))
        logits = np.ascontiguousarray(image[:, ::4, ::4].transpose(0, 3, 1, 2)).astype(np.float32)
        return {name: {"logits": logits}[name] for name in names}

    def _run_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> list[LabelMap]:
        self.calls.append((image.shape, ("device labels",)))
        self.wanted += wanted
        return [np.full(size, 9, np.uint8) for size, _ in wanted]


def manifest(changes: Mapping[str, Any]) -> Manifest:
    plain = Manifest(
        name="fake",
        network="fake",
        num_classes=3,
        labels=("red", "green", "blue"),
        palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
        input_size=NET,
        logit_size=(8, 12),
        divisor=8,
        input=InputSpec(),
        resize=ResizeRule(),
        postprocess=POSTPROCESS,
        targets=("ort",),
    )
    return dataclasses.replace(plain, **changes)


def expected(
    image: NDArray[np.uint8], size: Size | None = None, *, rule: ResizeRule | None = None
) -> NDArray[np.uint8]:
    """What the fake network gives, step by step."""
    fitted, region = fit_image(image, NET, rule or ResizeRule())
    logits = np.ascontiguousarray(fitted[::4, ::4].transpose(2, 0, 1)).astype(np.float32)
    return labels_from_logits(logits, size or image.shape[:2], postprocess=POSTPROCESS, region=region)


def same(result: Result | Failure, labels: NDArray[np.uint8]) -> bool:
    assert isinstance(result, Result)
    return np.array_equal(result.labels, labels)


def shows(result: Result | Failure, image: NDArray[np.uint8]) -> bool:
    assert isinstance(result, Result)
    assert result.image is not None
    return np.array_equal(result.image, image)


def error_of(result: Result | Failure) -> EdgesegError:
    assert isinstance(result, Failure)
    return result.error


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())


def no_threads() -> bool:
    gc.collect()
    return not [thread for thread in threading.enumerate() if thread.name.startswith("edgeseg-")]
