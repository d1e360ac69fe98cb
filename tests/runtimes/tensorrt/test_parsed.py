"""The rules for graphs of NVIDIA's engines, on graphs that TensorRT-RTX parsed: each is broken by one graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks import gpu_precisions, matrix
from tests.export.graphs import parse
from tests.runtimes.tensorrt.parsed import broken_rules, parsed

rtx = pytest.importorskip("tensorrt_rtx_bindings")
pytest.importorskip("onnxscript")

_START = "f = Cast <to = 10> (image) x = Transpose <perm = [0, 3, 1, 2]> (f)"
_INT8 = "q = QuantizeLinear (x, s, z) a = DequantizeLinear (q, s, z) w = DequantizeLinear (w_q, s, z)"
_CONV = "Conv <kernel_shape = [1, 1]>"
_FLOATS = "f = Cast <to = 1> (image) x = Transpose <perm = [0, 3, 1, 2]> (f)"


def _graph(body: str, kind: str = "float16") -> onnx.ModelProto:
    model = parse(f"g (uint8[1,8,8,3] image) => ({kind}[1,4,8,8] logits) {{ {body} }}", opset=19, check=False)
    rng = np.random.default_rng(1)
    held: dict[str, NDArray[np.generic]] = {
        "s": np.array(0.125, np.float16),
        "z": np.array(0, np.int8),
        "w_q": rng.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8),
        "w_half": rng.normal(size=(4, 3, 1, 1)).astype(np.float16),
        "w_float": rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        "sizes": np.array([1, 4, 8, 8], np.int64),
    }
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in held.items() if name in read)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model)
    return model


_HALF = f"{_START} logits = {_CONV} (x, w_half)"


@pytest.mark.parametrize(
    ("precision", "body", "kind"),
    [
        ("fp32", f"{_FLOATS} logits = {_CONV} (x, w_float)", "float"),
        ("fp16", _HALF, "float16"),
        ("int8", f"{_START} {_INT8} logits = {_CONV} (a, w)", "float16"),
    ],
)
def test_a_graph_as_it_should_be_breaks_no_rule(precision: str, body: str, kind: str) -> None:
    assert broken_rules(parsed(rtx, _graph(body, kind)), precision) == {}


@pytest.mark.parametrize(
    ("rule", "precision", "body", "kind"),
    [
        ("input_is_cast_first", "fp16", f"{_FLOATS} h = Cast <to = 10> (x) logits = {_CONV} (h, w_half)", "float16"),
        (
            "convolutions_are_half",
            "fp16",
            f"{_START} y = Cast <to = 1> (x) c = {_CONV} (y, w_float) logits = Cast <to = 10> (c)",
            "float16",
        ),
        (
            "int8_on_both_sides",
            "int8",
            f"{_START} w = DequantizeLinear (w_q, s, z) logits = {_CONV} (x, w)",
            "float16",
        ),
        (
            "quantisers_serve",
            "int8",
            f"{_START} c = {_CONV} (x, w_half) q = QuantizeLinear (c, s, z) d = DequantizeLinear (q, s, z) "
            "logits = Sigmoid (d)",
            "float16",
        ),
        (
            "ends_in_logits",
            "fp16",
            f'{_START} c = {_CONV} (x, w_half) logits = Resize <mode = "linear"> (c, , , sizes)',
            "float16",
        ),
        ("logits_are_half", "fp16", f"{_START} c = {_CONV} (x, w_half) logits = Cast <to = 1> (c)", "float"),
    ],
)
def test_each_rule_is_broken_by_a_graph_that_breaks_it_alone(rule: str, precision: str, body: str, kind: str) -> None:
    assert list(broken_rules(parsed(rtx, _graph(body, kind)), precision)) == [rule]


def test_labels_at_the_end_are_found() -> None:
    body = f"{_START} c = {_CONV} (x, w_half) i = ArgMax <axis = 1, keepdims = 1> (c) logits = Cast <to = 10> (i)"
    model = _graph(body)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    assert "ends_in_logits" in broken_rules(parsed(rtx, model), "fp16")


def test_a_convolution_that_is_marked_may_be_fp32() -> None:
    body = f"{_START} y = Cast <to = 1> (x) logits = {_CONV} (y, w_float)"
    model = _graph(body, "float")
    assert set(broken_rules(parsed(rtx, model), "fp16")) == {"convolutions_are_half", "logits_are_half"}
    assert broken_rules(parsed(rtx, model, {"logits"}), "fp16") == {}


def test_a_graph_that_the_parser_refuses_is_told() -> None:
    model = _graph(_HALF)
    model.graph.node[-1].op_type = "NoSuchOperator"
    with pytest.raises(ValueError, match="the parser refuses the graph"):
        parsed(rtx, model)


def test_one_network_in_every_precision() -> None:
    row = gpu_precisions.check("pphumanseg_lite", precisions=("fp32", "fp16"))
    assert gpu_precisions.holds(row), row
    assert set(row["cells"]["fp16"]["convolutions"]) == {"half"}
    assert "keep every rule" in gpu_precisions.section([row])


def test_what_breaks_a_rule_stands_in_the_table() -> None:
    cell = {"ok": False, "convolutions": {"half": 3}, "fp32_operators": 2, "undone": {"HalfPixels": "reverted"}}
    broken = {"ends_in_logits": ["the output logits is HALF of TOPK"]}
    cells = {"fp32": {"ok": False, "words": "no such node"}, "fp16": {**cell, "broken": broken}}
    row = {"name": "x", "system": "X", "size": [64, 128], "cells": cells}
    table = gpu_precisions.section([row])
    assert "0 of 1 networks (1 systems)" in table
    assert "| no such node | 3 half; 2 operators fp32; **HalfPixels undone**; **ends_in_logits: the output" in table
    assert table in matrix.write_table([], table)
    assert gpu_precisions.section([]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", matrix.smallest_of_each_system())
def test_one_network_of_each_system_in_every_precision(name: str) -> None:
    row = gpu_precisions.check(name)
    assert gpu_precisions.holds(row), row
