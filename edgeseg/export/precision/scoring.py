"""How far a low-precision graph is from fp32 PyTorch, on pictures that it was not calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.export.precision.calibration import Picture
from edgeseg.export.reference import ParitySet, at_size_of
from edgeseg.export.to_onnx import first_reason
from edgeseg.intervals import Interval, draws, interval_of
from edgeseg.labels import LabelMap
from edgeseg.metrics import ConfusionMatrix, agreement
from edgeseg.postprocess import labels_from_logits
from edgeseg.specs import PostprocessSpec

__all__ = ["Score", "Scorer", "open_graph"]

Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 (H, W, channels) to logits (C, h, w)."""


Form = Callable[[onnx.ModelProto], onnx.ModelProto]
"""A graph to the same network's in the form of one engine."""

PASS_PICTURES = 16
"""Pictures that a pass on a lowered graph is scored on, before and after it."""


@dataclass(frozen=True)
class Score:
    """What a graph scored.

    Attributes:
        agreement: Share of labels equal to fp32 PyTorch's, 0..1.
        miou: 0..1; None without label maps.
        error: Root mean square of the logits' difference, relative to their range.
        agreement_95: Ends of the 95 % interval of `agreement`; None for a single picture.
    """

    agreement: float
    miou: float | None
    error: float
    agreement_95: tuple[float, float] | None = None


class Scorer:
    """Scores graphs on held-out pictures.

    Args:
        pictures: The held-out pictures.
        expected: What fp32 PyTorch makes of them, in the same order.
        postprocess: How logits become labels.
        classes: Number of classes that are scored.
        form: Writes a graph as ONNX Runtime is given it; as it is where none is given.
        batch: Of the graph.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        expected: ParitySet,
        postprocess: PostprocessSpec,
        classes: int,
        *,
        form: Form | None = None,
        batch: int = 1,
    ) -> None:
        self.pictures, self.expected, self.postprocess = pictures, expected, postprocess
        self._classes, self._batch = classes, batch
        self._form: Form = form or (lambda model: model)
        self.matrix_fp32 = self._matrix(expected.logits)
        self.miou_fp32 = None if self.matrix_fp32 is None else self.matrix_fp32.miou

    @property
    def labelled(self) -> bool:
        """Whether there are label maps."""
        return all(picture.truth is not None for picture in self.pictures)

    def graph(self, model: onnx.ModelProto) -> Score:
        """Score a graph, run by ONNX Runtime as a device runs it: in its own form, with its int8 kernels."""
        return self.logits(open_graph(self._form(model), batch=self._batch))

    def agreement(self, model: onnx.ModelProto) -> float:
        """Share of equal labels, 0..1, of a graph as it stands, on the first `PASS_PICTURES` pictures."""
        run = open_graph(model, batch=self._batch)
        pairs = zip(self.pictures[:PASS_PICTURES], self.expected.labels, strict=False)
        counts = np.array([self._differing(run(picture.image), labels) for picture, labels in pairs])
        return 1.0 - float(counts[:, 0].sum() / counts[:, 1].sum())

    def logits(self, run: Logits) -> Score:
        """Score anything that gives logits."""
        found = [run(picture.image) for picture in self.pictures]
        counts = np.array([self._differing(*pair) for pair in zip(found, self.expected.labels, strict=True)])
        wrong, total = counts.sum(axis=0)
        return Score(1.0 - float(wrong / total), self._miou(found), self._error(found), _interval(counts))

    def _differing(self, logits: NDArray[np.float32], labels: LabelMap) -> tuple[int, int]:
        """Differing and compared pixels of one picture."""
        size = (labels.shape[0], labels.shape[1])
        return agreement(labels, labels_from_logits(logits, size, postprocess=self.postprocess))

    def error(self, model: onnx.ModelProto, most: int) -> float:
        """`Score.error` on the first pictures only."""
        run = open_graph(self._form(model), batch=self._batch)
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
        matrix = self._matrix(found)
        return None if matrix is None else matrix.miou

    def _matrix(self, found: Sequence[NDArray[np.float32]]) -> ConfusionMatrix | None:
        if not self.labelled:
            return None
        matrix = ConfusionMatrix(self._classes)
        for picture, logits in zip(self.pictures, found, strict=True):
            if picture.truth is None:
                continue
            height, width = picture.truth.shape
            labels = labels_from_logits(logits, (height, width), postprocess=self.postprocess, region=picture.region)
            matrix.update(picture.truth, labels, ignore=picture.void)
        return matrix


def _interval(counts: NDArray[np.int64]) -> Interval | None:
    """Give the 95 % interval of the share of equal labels, by resampling pictures, whose pixels are not independent.

    Args:
        counts: Differing and compared pixels, (pictures, 2).
    """
    if len(counts) < 2:
        return None
    sums = np.concatenate([weights @ counts for weights in draws(len(counts))])
    return interval_of(1.0 - sums[:, 0] / sums[:, 1])


def open_graph(model: onnx.ModelProto, *, batch: int = 1) -> Logits:
    """A function from a picture to logits, by ONNX Runtime with all its optimisations, as a device runs the graph.

    Raises:
        ExportError: ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ExportError(f"ONNX Runtime refuses the low-precision graph: {first_reason(error)}") from error

    def run(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        (logits,) = session.run(["logits"], {"image": np.stack([image] * batch)})
        first: NDArray[np.float32] = np.asarray(logits)[0].astype(np.float32, copy=False)
        return first

    return run
