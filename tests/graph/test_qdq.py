"""Tools on quantised graphs leave the model they are given as it is, and change nothing besides what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeseg.errors import ExportError
from edgeseg.graph.qdq import (
    as_int8,
    check_symmetric,
    named,
    quantised_nodes,
    seven_bits,
    tidy,
    without_quantisers,
)
from edgeseg.graph.run import run_graph
from tests.graph.passes.tools import build, kinds, normal

WEIGHTS = {"w": normal(4, 3, 1, 1), "b": normal(4, seed=1)}
FEED = {"x": normal(1, 3, 5, 6, seed=2)}


def _float() -> onnx.ModelProto:
    return named(build("g (float[1,3,5,6] x) => (float[1,4,5,6] y) { c = Conv(x, w, b) y = Relu(c) }", **WEIGHTS))


def _quantised(zero: np.generic, bias: float = 1.0) -> onnx.ModelProto:
    """The same, its input quantised, with a bias of another value under the same name."""
    body = (
        "g (float[1,3,5,6] x) => (float[1,4,5,6] y) "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) c = Conv(d, w, b) y = Relu(c) }"
    )
    made = build(body, **(WEIGHTS | {"b": WEIGHTS["b"] * bias}), s=np.array(0.25, np.float32), z=np.array(zero))
    names = ["Q", "DQ", *(node.name for node in _float().graph.node)]
    for node, name in zip(made.graph.node, names, strict=True):
        node.name = name
    return made


TOOLS: list[Callable[[onnx.ModelProto], object]] = [
    as_int8,
    named,
    quantised_nodes,
    seven_bits,
    tidy,
    lambda model: without_quantisers(model, _float(), ["Conv_0"]),
]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("zero", [np.int8(0), np.uint8(0)])
def test_the_model_stays_as_it_was(tool: Callable[[onnx.ModelProto], object], zero: np.generic) -> None:
    model = _quantised(zero, bias=2.0)
    before = model.SerializeToString()
    tool(model)
    assert model.SerializeToString() == before


def test_operators_are_put_back_with_the_constants_they_had() -> None:
    original, model = _float(), _quantised(np.int8(0), bias=2.0)
    before = original.SerializeToString()
    whole = without_quantisers(model, original, ["Conv_0"])
    assert original.SerializeToString() == before
    onnx.checker.check_model(whole, full_check=True)
    assert kinds(whole) == ["Conv", "Relu"]
    assert np.array_equal(run_graph(whole, FEED)[0], run_graph(original, FEED)[0])


def test_operators_that_are_not_named_stay_quantised() -> None:
    model = _quantised(np.int8(0))
    assert without_quantisers(model, _float(), []) == tidy(model)
    assert quantised_nodes(model) == ["Conv_0"]


def test_seven_bits_widen_the_scale_of_uint8_alone() -> None:
    for zero, scale in ((np.int8(0), 0.25), (np.uint8(0), 0.25 * 255 / 127)):
        made = {tensor.name: numpy_helper.to_array(tensor) for tensor in seven_bits(_quantised(zero)).graph.initializer}
        assert made["s"] == np.float32(scale)


def test_tidy_drops_what_nothing_uses() -> None:
    body = "g (float[1,3,5,6] x) => (float[1,3,5,6] y) { dead = Exp(x) gone = Add(dead, k) y = Relu(x) }"
    made = tidy(build(body, k=normal(1)))
    assert kinds(made) == ["Relu"]
    assert not made.graph.initializer


def test_a_zero_point_that_is_not_zero_is_refused() -> None:
    check_symmetric(_quantised(np.uint8(0)))
    with pytest.raises(ExportError, match="zero point of 3"):
        check_symmetric(_quantised(np.uint8(3)))
