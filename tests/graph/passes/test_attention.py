"""The projection after single-head attention moves to the values, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes import ProjectValues
from tests.graph.passes.tools import build, in_double, kinds, normal, proved


def _attention(
    *, heads: int = 1, queries: int = 256, keys: int = 8, last: str = "Gemm(f, w, b)", axis: int = -1, batch: int = 1
) -> onnx.ModelProto:
    width = 4 * heads
    body = (
        f"s = Softmax<axis={axis}>(q) m = MatMul(s, v) t = Transpose<perm=[0,2,1,3]>(m) f = Reshape(t, flat) "
        f"o = {last} y = Reshape(o, full)"
    )
    return build(
        f"g (float[{batch},{heads},{queries},{keys}] q, float[{batch},{heads},{keys},4] v) => "
        f"(float[{batch},{queries},{width}] y) {{ {body} }}",
        flat=np.array([-1, width], np.int64),
        full=np.array([batch, queries, width], np.int64),
        w=normal(width, width),
        b=normal(width),
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("last", ["Gemm(f, w, b)", "Gemm<transB=1>(f, w, b)", "MatMul(f, w)"])
def test_the_values_are_projected(last: str, batch: int) -> None:
    model = _attention(last=last, batch=batch)
    rewritten, _ = proved(model, ProjectValues())
    assert "Gemm" not in kinds(rewritten)
    assert "Transpose" not in kinds(rewritten)
    assert in_double(model, ProjectValues()) < 1e-12


@pytest.mark.parametrize(
    "model",
    [
        _attention(heads=2),
        _attention(axis=2),
        _attention(queries=8, keys=256),
        _attention(last="Gemm<alpha=2.0>(f, w, b)"),
    ],
    ids=["two heads", "softmax over queries", "more keys than queries", "scaled"],
)
def test_it_declines(model: onnx.ModelProto) -> None:
    assert not ProjectValues()(model).modified


def test_a_product_others_read_stays() -> None:
    body = "s = Softmax<axis=-1>(q) m = MatMul(s, v) y = MatMul(m, w) z = Relu(m)"
    model = build(
        f"g (float[1,64,8] q, float[1,8,4] v) => (float[1,64,4] y, float[1,64,4] z) {{ {body} }}", w=normal(4, 4)
    )
    assert not ProjectValues()(model).modified
