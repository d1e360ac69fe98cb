"""How far a low-precision graph is from fp32 PyTorch, on pictures that it was not calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ExportError, InputError
from edgeseg.export.precision.calibration import Picture
from edgeseg.export.reference import ParitySet, at_size_of
from edgeseg.export.to_onnx import first_reason
from edgeseg.metrics import ConfusionMatrix, agreement
from edgeseg.postprocess import labels_from_logits
from edgeseg.runtimes.ort.passes import for_onnxruntime
from edgeseg.specs import PostprocessSpec

__all__ = ["Score", "Scorer", "open_graph"]

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 (H, W, 3) to logits (C, h, w)."""


@dataclass(frozen=True)
class Score:
    """What a graph scored.

    Attributes:
        agreement: Share of labels equal to fp32 PyTorch's, 0..1.
        miou: 0..1; None without label maps.
        error: Root mean square of the logits' difference, relative to their range.
    """

    agreement: float
    miou: float | None
    error: float


class Scorer:
    """Scores graphs on held-out pictures.

    Args:
        pictures: The held-out pictures.
        expected: What fp32 PyTorch makes of them, in the same order.
        postprocess: How logits become labels.
        classes: Number of labels.
        batch: Of the graph.
        ignore: Label value of void in label maps.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        expected: ParitySet,
        postprocess: PostprocessSpec,
        classes: int,
        *,
        batch: int = 1,
        ignore: int | None = None,
    ) -> None:
        self.pictures, self.expected, self.postprocess = pictures, expected, postprocess
        self._classes = classes - 1 if ignore == classes - 1 else classes
        self._batch, self._ignore = batch, ignore
        self.miou_fp32 = self._miou(expected.logits)

    @property
    def labelled(self) -> bool:
        """Whether there are label maps."""
        return all(picture.truth is not None for picture in self.pictures)

    def graph(self, model: onnx.ModelProto) -> Score:
        """Score a graph, run by ONNX Runtime as a device runs it: with its int8 kernels."""
        return self.logits(open_graph(model, batch=self._batch))

    def logits(self, run: Logits) -> Score:
        """Score anything that gives logits."""
        found = [run(picture.image) for picture in self.pictures]
        wrong = total = 0
        for logits, labels in zip(found, self.expected.labels, strict=True):
            height, width = labels.shape
            differing, pixels = agreement(
                labels, labels_from_logits(logits, (height, width), postprocess=self.postprocess)
            )
            wrong, total = wrong + differing, total + pixels
        return Score(1.0 - wrong / total, self._miou(found), self._error(found))

    def error(self, model: onnx.ModelProto, most: int) -> float:
        """`Score.error` on the first pictures only."""
        run = open_graph(model, batch=self._batch)
        return self._error([run(picture.image) for picture in self.pictures[:most]])

    def _error(self, found: Sequence[NDArray[np.float32]]) -> float:
        pairs = zip(found, self.expected.logits, strict=False)
        squares = [
            np.mean(np.square(at_size_of(wanted, got[None].astype(np.float64), self.postprocess)[0].numpy() - wanted))
            for got, wanted in pairs
        ]
        error = float(np.sqrt(np.mean(squares))) / (self.expected.logit_range or 1.0)
        return error if np.isfinite(error) else float("inf")

    def _miou(self, found: Sequence[NDArray[np.float32]]) -> float | None:
        if not self.labelled:
            return None
        matrix = ConfusionMatrix(self._classes)
        for picture, logits in zip(self.pictures, found, strict=True):
            if picture.truth is None:
                continue
            height, width = picture.truth.shape
            labels = labels_from_logits(logits, (height, width), postprocess=self.postprocess, region=picture.region)
            try:
                matrix.update(picture.truth, labels, ignore=self._ignore)
            except InputError as error:
                raise InputError(f"label map of '{picture.path}': {error} (--calib-ignore)") from error
        return float(matrix.miou)


def open_graph(model: onnx.ModelProto, *, batch: int = 1) -> Logits:
    """A function from a picture to logits, by ONNX Runtime with all its optimisations, as a device runs the graph.

    Raises:
        ExportError: ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        content = for_onnxruntime(model).SerializeToString()
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ExportError(f"ONNX Runtime refuses the low-precision graph: {first_reason(error)}") from error

    def run(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        out: list[NDArray[Any]] = session.run(["logits"], {"image": np.stack([image] * batch)})
        logits: NDArray[np.float32] = out[0][0]
        return logits

    return run
