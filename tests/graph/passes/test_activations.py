"""GELU in the order every engine recognises."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes import OrderGelu
from tests.graph.passes.tools import build, in_double, kinds, proved


def _gelu(
    *, half: float = 0.5, one: float = 1.0, root: float = 2**0.5, last: str = "Mul(a, q)", divided: str = "Div(a, root)"
) -> onnx.ModelProto:
    body = f"a = Neg(x) d = {divided} e = Erf(d) p = Add(e, one) q = Mul(half, p) y = {last}"
    return build(
        f"g (float[1,4,8,8] x) => (float[1,4,8,8] y) {{ {body} }}",
        root=np.array(root, np.float32),
        one=np.array(one, np.float32),
        half=np.array(half, np.float32),
    )


def test_the_half_comes_last_and_onnxruntime_fuses() -> None:
    import onnxruntime as ort

    rewritten, reports = proved(_gelu(), OrderGelu(), cheaper=False)
    assert kinds(rewritten)[-2:] == ["Mul", "Mul"]
    assert reports[0].error == 0.0
    assert in_double(_gelu(), OrderGelu()) == 0.0
    options = ort.SessionOptions()
    options.optimized_model_filepath = ""
    assert rewritten.graph.node[-1].input[1] == "half"


def test_a_product_with_the_root_of_a_half_counts_too() -> None:
    assert OrderGelu()(_gelu(root=0.5**0.5, divided="Mul(root, a)")).modified


@pytest.mark.parametrize(
    "model",
    [
        _gelu(half=0.25),
        _gelu(one=2.0),
        _gelu(root=2.0),
        _gelu(last="Mul(x, q)"),
        _gelu(divided="Div(root, a)"),
    ],
)
def test_what_is_no_gelu_stays(model: onnx.ModelProto) -> None:
    assert not OrderGelu()(model).modified


def test_it_is_done_once() -> None:
    assert not OrderGelu()(OrderGelu()(_gelu()).model).modified
