"""Hard swish as the product of two convolutions: a step and a half of rounding, all in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.swish import MultiplySwishes
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import constants, formed, kernels, numbers, quantised, rewritten_by

CONV = f"{quantised('x', 'a')} w = DequantizeLinear<axis=0>(w_q, w_s, w_z) c = Conv<kernel_shape=[1,1]>(a, w, b) "


def _graph(body: str, **more: NDArray[Any]) -> onnx.ModelProto:
    held: dict[str, NDArray[Any]] = constants(8, 8)
    more = {"b": numbers(7, 8), "zero": np.array(0, np.uint8), "signed": np.array(0, np.int8), **more}
    model = build(f"g (float[1,8,6,10] x) => (float[1,8,6,10] r) {{ {CONV} {body} }}", **held | more)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return model


WHOLE = f"h = HardSwish(c) {quantised('h', 'r')}"
SIGNED = "h = HardSwish(c) r_q = QuantizeLinear(h, s, signed) r = DequantizeLinear(r_q, s, signed)"
ABOVE = "h = HardSwish(c) r_q = QuantizeLinear(h, s, zero) r = DequantizeLinear(r_q, s, zero)"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), body=st.sampled_from([WHOLE, ABOVE]), scale=st.sampled_from([0.02, 0.0625, 0.2]))
def test_a_hard_swish_becomes_a_product(seed: int, body: str, scale: float) -> None:
    model = _graph(body, s=np.array(scale, np.float32))
    rewritten = rewritten_by(MultiplySwishes, model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert "HardSwish" not in kinds(rewritten)
    feed = {"x": numbers(seed, 1, 8, 6, 10)}
    before, after = run_graph(model, feed)[0], run_graph(rewritten, feed)[0]
    largest = scale * (127 if body is WHOLE else 255)
    between = (max(largest, 3.0) + 3.0) / 255  # a step of the straight convolution, and of the gate times the largest
    assert np.abs(before - after).max() <= scale + between / 2 + max(largest, 3.0) / 510


def test_all_of_it_runs_in_int8(tmp_path: Path) -> None:
    found = kernels(formed(_graph(WHOLE)), tmp_path)
    assert "QLinearMul" in found
    assert not {"HardSwish", "HardSigmoid", "Conv", "Mul"} & set(found)
    assert "HardSigmoid" in kernels(_graph(WHOLE), tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        "h = HardSwish(c) r = Sigmoid(h)",
        f"h = HardSwish(c) {quantised('h', 'q')} r = Add(q, c)",
        "r = HardSwish(c)",
        SIGNED,
    ],
    ids=["float reader", "read before", "graph's output", "int8 reader"],
)
def test_others_stay(body: str) -> None:
    assert kinds(rewritten_by(MultiplySwishes, _graph(body))) == kinds(_graph(body))
    assert MultiplySwishes()(_graph(body)).report.declined
