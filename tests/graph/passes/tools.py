"""Small graphs for the tests of the passes, and two proofs: float32 in ONNX Runtime, float64 in ONNX's reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeseg.graph.cost import graph_cost
from edgeseg.graph.passes import Pass, PassReport, run_passes
from tests.export.graphs import parse

__all__ = ["build", "in_double", "kinds", "normal", "proved"]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Seeded normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def build(body: str, **constants: NDArray[Any]) -> onnx.ModelProto:
    """A checked model, opset 18, from the text of its graph, with these constants."""
    model = parse(body, check=False)  # without its constants it is not whole
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model)
    return model


def kinds(model: onnx.ModelProto) -> list[str]:
    """Operators in order."""
    return [node.op_type for node in model.graph.node]


def feeds(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Seeded numbers for every input."""
    made: dict[str, NDArray[Any]] = {}
    for index, given in enumerate(model.graph.input):
        shape = [dim.dim_value or 5 for dim in given.type.tensor_type.shape.dim]
        made[given.name] = normal(*shape, seed=100 + index)
    return made


def proved(model: onnx.ModelProto, *steps: Pass, cheaper: bool = True) -> tuple[onnx.ModelProto, list[PassReport]]:
    """The rewritten model: the numbers held to 1e-5 of the range, outputs kept name and shape, it costs less."""
    given = model.SerializeToString()
    rewritten, reports = run_passes(model, steps, feeds(model), rounds=2)
    assert model.SerializeToString() == given
    onnx.checker.check_model(rewritten, full_check=True)
    assert list(rewritten.graph.output) == list(model.graph.output)
    assert not any("reverted" in report.reason for report in reports), reports
    if cheaper and any(report.modified for report in reports):
        assert graph_cost(rewritten).seconds < graph_cost(model).seconds
    return rewritten, reports


def in_double(model: onnx.ModelProto, step: Pass) -> float:
    """Largest difference a pass makes in float64, relative to the range: real arithmetic, as near as it gets."""
    wide = _double(model)
    result = step(wide)
    assert result.modified
    given: Mapping[str, NDArray[Any]] = {name: array.astype(np.float64) for name, array in feeds(model).items()}
    old, new = (_reference(m, given) for m in (wide, result.model))
    return float(np.abs(new - old).max() / np.ptp(old))


def _reference(model: onnx.ModelProto, given: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    outputs: Any = ReferenceEvaluator(model).run(None, dict(given))
    return np.asarray(outputs[0], np.float64)


def _double(model: onnx.ModelProto) -> onnx.ModelProto:
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not tensor.name.startswith("scales"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    return wide
