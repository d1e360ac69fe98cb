"""Proof that a target makes the masks of fp32 PyTorch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg import bundle as layout
from edgeseg.bundle import Bundle, Parity
from edgeseg.errors import TargetUnavailableError
from edgeseg.export.passes import run_graph
from edgeseg.export.reference import ParitySet, compare, compare_outputs
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
    names = [output.name for output in model.graph.output]

    def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, run_graph(model, {"image": image}), strict=True))

    engine = "graph run in onnxruntime; the engine needs a GPU and was not run"
    tail, batch = bundle.manifest.tail, bundle.manifest.batch
    return replace(compare_outputs(target, run, engine, expected, tail, batch=batch), ran=False)
