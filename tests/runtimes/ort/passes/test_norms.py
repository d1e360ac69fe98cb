"""Layer norms of many short tokens become instance norms, their scale and shift weights of what reads them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.export.passes import default_passes, engine_passes
from edgeseg.runtimes.ort.engine import ORT
from edgeseg.runtimes.ort.passes import norms
from edgeseg.runtimes.ort.passes.norms import SplitNorms
from tests.graph.passes.tools import build, kinds, normal, proved

_GEMM = "f = Reshape(t, flat) y = Gemm(f, w, b)"
_CONV = "p = Transpose<perm=[0,2,1]>(t) m = Reshape(p, grid) y = Conv<strides=[2,2]>(m, k, c)"


def _tokens(
    body: str, *, batch: int = 1, height: int = 32, width: int = 64, channels: int = 8, out: str = "", more: str = ""
) -> onnx.ModelProto:
    tokens = height * width
    out = out or f"float[{batch * tokens},12] y"
    return build(
        f"g (float[{batch},{tokens},{channels}] x) => ({out}) "
        f"{{ t = LayerNormalization<axis=-1, epsilon=0.001>(x, gamma, beta) {body} {more} }}",
        gamma=normal(channels, seed=1),
        beta=normal(channels, seed=2),
        flat=np.array([batch * tokens, channels], np.int64),
        grid=np.array([batch, channels, height, width], np.int64),
        w=normal(channels, 12, seed=3),
        v=normal(12, channels, seed=3),
        b=normal(12, seed=4),
        k=normal(12, channels, 2, 2, seed=5),
        c=normal(12, seed=6),
        d=normal(channels, 1, 2, 2, seed=7),
        e=normal(channels, seed=8),
    )


def _map(batch: int = 1, channels: int = 12) -> str:
    return f"float[{batch},{channels},16,32] y"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("body", "mapped"),
    [
        (_GEMM, 0),
        ("f = Reshape(t, flat) y = Gemm<transB=1>(f, v, b)", 0),
        (_CONV, 12),
        (_CONV.replace("Conv<", "Conv<group=8, ").replace("k, c", "d, e"), 8),
    ],
    ids=["Gemm", "Gemm transposed", "Conv", "depthwise"],
)
def test_scale_and_shift_go_into_the_reader(body: str, mapped: int, batch: int) -> None:
    model = _tokens(body, batch=batch, out=_map(batch, mapped) if mapped else "")
    rewritten, _ = proved(model, SplitNorms(), cheaper=False)
    assert kinds(rewritten) == ["InstanceNormalization", *kinds(model)[1:]]


def test_two_readers_get_both() -> None:
    body = "f = Reshape(t, flat) y = Gemm(f, w, b) " + _CONV.replace("y =", "z =")
    out = f"float[2048,12] y, {_map().replace(' y', ' z')}"
    rewritten, _ = proved(_tokens(body, out=out), SplitNorms(), cheaper=False)
    assert "Mul" not in kinds(rewritten)


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("y = Relu(t)", "float[1,2048,8] y"),
        (_GEMM + " z = Relu(t)", "float[2048,12] y, float[1,2048,8] z"),
        ("y = Add(t, x)", "float[1,2048,8] y"),
        ("f = Reshape(t, flat) y = Gemm(f, w)", ""),
        ("f = Reshape(t, flat) y = Gemm<alpha=2.0>(f, w, b)", ""),
        (_CONV.replace("<", "<pads=[1,1,1,1], ", 2).replace("<pads=[1,1,1,1], perm", "<perm"), "float[1,12,17,33] y"),
        ("m = Reshape(t, grid) y = Conv<strides=[2,2]>(m, k, c)", _map()),  # the channels are torn apart
        ("y = Identity(t)", "float[1,2048,8] y, float[1,2048,8] t"),
    ],
    ids=["relu", "one of two", "residual", "no bias", "scaled", "padded", "torn", "output"],
)
def test_elsewhere_they_stay_nodes(body: str, out: str) -> None:
    rewritten, _ = proved(_tokens(body, out=out), SplitNorms(), cheaper=False)
    assert kinds(rewritten)[:3] == ["InstanceNormalization", "Mul", "Add"]


@pytest.mark.parametrize(
    "model",
    [
        _tokens(_GEMM, height=8),
        _tokens(_GEMM, channels=80),
        build(
            "g (float[1,4,512,8] x) => (float[1,4,512,8] y) { y = LayerNormalization<axis=-1>(x, s, s) }", s=normal(8)
        ),
        build("g (float[1,2048,8] x, float[8] s) => (float[1,2048,8] y) { y = LayerNormalization<axis=-1>(x, s) }"),
        build(
            "g (float[1,2048,8] x) => (float[1,2048,8] y) { y = LayerNormalization<axis=1>(x, s) }", s=normal(2048, 8)
        ),
    ],
    ids=["few tokens", "many channels", "rank 4", "scale not constant", "two axes"],
)
def test_it_declines(model: onnx.ModelProto) -> None:
    assert not SplitNorms()(model).modified


def test_a_norm_without_shift() -> None:
    model = build(
        "g (float[2,1024,8] x) => (float[2,1024,8] y) { t = LayerNormalization<axis=2>(x, s) y = Relu(t) }", s=normal(8)
    )
    rewritten, _ = proved(model, SplitNorms(), cheaper=False)
    assert kinds(rewritten) == ["InstanceNormalization", "Mul", "Relu"]


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2),
    half=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(2, 16),
    reader=st.sampled_from((_GEMM, _CONV, "y = Relu(t)")),
)
def test_any_size_holds(batch: int, half: tuple[int, int], channels: int, reader: str) -> None:
    height, width = 2 * half[0], 2 * half[1]
    tokens = batch * height * width
    out = {
        _GEMM: f"float[{tokens},12] y",
        _CONV: f"float[{batch},12,{half[0]},{half[1]}] y",
        "y = Relu(t)": f"float[{batch},{height * width},{channels}] y",
    }
    model = _tokens(reader, batch=batch, height=height, width=width, channels=channels, out=out[reader])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "_TOKENS", 1)
        rewritten, _ = proved(model, SplitNorms(), cheaper=False)
    assert "LayerNormalization" not in kinds(rewritten)


def test_only_onnx_runtime_s_own_graph_gets_it() -> None:
    assert any(isinstance(step, SplitNorms) for step in engine_passes(ORT, "fp32"))
    assert not any(isinstance(step, SplitNorms) for step in default_passes())
