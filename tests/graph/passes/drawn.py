"""Small graphs with weights drawn at random, and the checks every rewrite goes through."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeseg.graph.passes import Pass, PassReport, run_passes
from tests.export.graphs import parse

__all__ = ["drawn", "kinds", "left_alone", "proved", "rewritten"]


def drawn(body: str, **given: NDArray[Any]) -> onnx.ModelProto:
    """A model from text: every input but the first becomes a constant, `given` or normally distributed."""
    model = parse(body)
    graph = model.graph
    generator = np.random.default_rng(0)
    for value in list(graph.input)[1:]:
        tensor = value.type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        array = given.get(value.name, generator.normal(size=shape)).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(array, value.name))
        graph.input.remove(value)
    onnx.checker.check_model(model)
    return model


def _feeds(model: onnx.ModelProto, seed: int = 1) -> dict[str, NDArray[Any]]:
    (value,) = model.graph.input
    shape = [dim.dim_value or 8 for dim in value.type.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return {value.name: np.random.default_rng(seed).normal(size=shape).astype(dtype)}


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes there are of each operator."""
    return Counter(node.op_type for node in model.graph.node)


def rewritten(model: onnx.ModelProto, step: Pass) -> onnx.ModelProto:
    """The graph after a pass that must change it, valid, with the same numbers in ONNX Runtime."""
    before = model.SerializeToString()
    changed, (report,) = run_passes(model, [step], _feeds(model), tolerance=3e-6)
    assert report.modified, (report.reason, report.declined)
    assert model.SerializeToString() == before
    assert changed.graph.output == model.graph.output
    onnx.checker.check_model(changed, full_check=True)
    return changed


def left_alone(model: onnx.ModelProto, step: Pass) -> PassReport:
    """The report of a pass that must not change the graph."""
    result = step(model)
    assert not result.modified
    assert result.model is model
    return result.report


def proved(model: onnx.ModelProto, step: Pass, *, tolerance: float = 1e-12) -> None:
    """In float64 the graph gives the same numbers before and after, relative to the largest."""
    result = step(model)
    assert result.modified
    feeds = _feeds(model)
    wanted, got = (ReferenceEvaluator(each).run(None, feeds) for each in (model, result.model))
    for old, new in zip(wanted, got, strict=True):
        old, new = np.asarray(old), np.asarray(new)
        assert old.dtype == np.float64
        np.testing.assert_allclose(new, old, rtol=0, atol=tolerance * float(np.abs(old).max()))
