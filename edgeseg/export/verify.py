"""Proof that a target makes the masks of fp32 PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from edgeseg import bundle as layout
from edgeseg.bundle import Bundle, Parity
from edgeseg.errors import TargetUnavailableError
from edgeseg.export.passes import run_graph
from edgeseg.export.reference import ParitySet, compare, logit_error
from edgeseg.metrics import agreement
from edgeseg.runtimes import open_session
from edgeseg.targets import GRAPH_TAIL_TARGETS

__all__ = ["verify_target"]


def verify_target(target: str, bundle: Bundle, expected: ParitySet) -> Parity:
    """Compare a target with fp32 PyTorch on the parity pictures.

    A GPU target on a machine without a GPU cannot run; then its graph is run in ONNX Runtime instead, and the entry
    says so (``ran`` is False): the engine was built, its arithmetic was not seen.

    Raises:
        TargetUnavailableError: The target's package is not installed.
    """
    tail, batch = bundle.manifest.tail, bundle.manifest.batch
    try:
        session = open_session(bundle, target)
    except TargetUnavailableError:
        if target not in GRAPH_TAIL_TARGETS:
            raise
        return _graph_alone(target, bundle, expected)
    try:
        return compare(target, session, expected, tail, batch=batch)
    finally:
        session.close()


def _graph_alone(target: str, bundle: Bundle, expected: ParitySet) -> Parity:
    model = onnx.load(bundle.path / layout.MODEL_LABELS)
    manifest = bundle.manifest
    differing = pixels = 0
    worst = 0.0
    comparable = manifest.label_size == manifest.input_size
    for image, logits, labels in zip(expected.images, expected.logits, expected.labels, strict=True):
        feed = {"image": np.repeat(image[None], manifest.batch, axis=0)}
        got_logits, got_labels = run_graph(model, feed)
        worst = max(worst, logit_error(got_logits, logits, manifest.tail))
        if comparable:
            wrong, total = agreement(labels, got_labels[0])
            differing, pixels = differing + wrong, pixels + total
    engine = "graph run in onnxruntime; the engine needs a GPU and was not run"
    parity = Parity(target, pixels, differing, worst, expected.logit_range, len(expected.images), engine)
    return replace(parity, ran=False)
