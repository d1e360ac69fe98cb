"""Run a graph as it stands, to compare it with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.errors import ExportError
from edgeseg.text import first_line

__all__ = ["run_graph"]


def run_graph(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a graph once in ONNX Runtime on the CPU, without graph optimisation, and return its outputs.

    Raises:
        ExportError: ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        outputs = [np.asarray(output) for output in session.run(None, dict(feeds))]
    except Exception as error:
        raise ExportError(f"ONNX Runtime refuses the graph: {first_line(error)}") from error
    return outputs
