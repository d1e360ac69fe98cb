"""The picture in half from its first cast on, as exact as a cast to half after fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeseg.runtimes.tensorrt.passes.pixels import HalfPixels
from tests.export.graphs import parse
from tests.export.precision.pictures import tiny_graph
from tests.graph.passes.tools import build, kinds

_IMAGENET: dict[str, NDArray[np.float32]] = {
    "mean": np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 3, 1, 1),
    "factor": np.divide(1, [58.395, 57.12, 57.375]).astype(np.float32).reshape(1, 3, 1, 1),
}
_START = "f = Cast<to=1>(image) x = Transpose<perm=[0,3,1,2]>(f)"


def _graph(body: str, **constants: NDArray[np.float32]) -> onnx.ModelProto:
    return build(f"g (uint8[1,16,16,3] image) => (float16[1,3,16,16] r) {{ {_START} {body} }}", **constants)


def _every_pixel() -> dict[str, NDArray[np.uint8]]:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    return {"image": np.repeat(pixels, 3, axis=3)}


def _half_arithmetic(model: onnx.ModelProto) -> NDArray[np.float64]:
    """What half arithmetic gives; ONNX Runtime on the CPU computes in fp32 between casts."""
    made: Any = ReferenceEvaluator(model).run(None, _every_pixel())
    return np.asarray(made[0]).astype(np.float64)


@pytest.mark.parametrize(
    "body",
    [
        "d = Sub(x, mean) n = Mul(d, factor) r = Cast<to=10>(n)",
        "d = Mul(x, factor) n = Add(d, offset) r = Cast<to=10>(n)",
        "n = Sub(x, mean) r = Cast<to=10>(n)",
        "n = Mul(x, factor) r = Cast<to=10>(n)",
    ],
)
def test_pixels_are_normalised_in_half(body: str) -> None:
    held = {**_IMAGENET, "offset": -_IMAGENET["mean"] * _IMAGENET["factor"]}
    used = {name: value for name, value in held.items() if name in body}
    model = _graph(body, **used)
    result = HalfPixels()(model)
    assert result.modified, result.report
    onnx.checker.check_model(result.model, full_check=True)
    casts = [node for node in result.model.graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.attribute[0].i) for node in casts] == [("image", onnx.TensorProto.FLOAT16)]
    wanted, got = _half_arithmetic(model), _half_arithmetic(result.model)
    step = 1.0 if "factor" not in body else 1 / 57
    assert (np.abs(got - wanted) <= 2**-8 * np.maximum(np.abs(wanted), step)).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 255.0), min_size=3, max_size=3), st.lists(st.floats(1.0, 255.0), min_size=3, max_size=3))
def test_any_normalisation_is_close_or_declined(mean: list[float], std: list[float]) -> None:
    held: dict[str, NDArray[np.float32]] = {
        "mean": np.array(mean, np.float32).reshape(1, 3, 1, 1),
        "factor": np.divide(1, std).astype(np.float32).reshape(1, 3, 1, 1),
    }
    model = _graph("d = Sub(x, mean) n = Mul(d, factor) r = Cast<to=10>(n)", **held)
    result = HalfPixels()(model)
    if not result.modified:
        assert result.report.declined
        return
    exact = (np.arange(256.0).reshape(1, 1, 16, 16) - held["mean"]) * held["factor"].astype(np.float64)
    allowed = 2**-8 * np.maximum(np.abs(exact), held["factor"])
    assert (np.abs(_half_arithmetic(result.model) - exact) <= allowed).all()


def test_a_quantiser_of_the_picture_reads_half() -> None:
    body = f"{_START} n = Sub(x, mean) q = QuantizeLinear(n, s, z) h = DequantizeLinear(q, t, z) r = Neg(h)"
    model = parse(f"g (uint8[1,16,16,3] image) => (float16[1,3,16,16] r) {{ {body} }}", opset=19, check=False)
    held = {"mean": _IMAGENET["mean"], "s": np.float32(1), "t": np.float16(1), "z": np.int8(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(x), name) for name, x in held.items())
    made = HalfPixels()(model).model
    onnx.checker.check_model(made, full_check=True)
    assert kinds(made) == ["Cast", "Transpose", "Add", "Add", "QuantizeLinear", "DequantizeLinear", "Neg"]
    assert np.abs(_half_arithmetic(made) - _half_arithmetic(model)).max() <= 1


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("d = Sub(x, x) n = Cast<to=10>(d) r = Neg(n)", "in fp32 reads"),
        ("d = Sub(x, mean) e = Exp(d) r = Cast<to=10>(e)", "in fp32 reads"),
        ("d = Mul(x, large) r = Cast<to=10>(d)", "exactly enough"),
    ],
)
def test_what_cannot_be_half_stays_fp32_and_says_why(body: str, why: str) -> None:
    held: dict[str, NDArray[np.float32]] = {"mean": _IMAGENET["mean"], "large": np.array(1e6, np.float32)}
    model = _graph(body, **{name: value for name, value in held.items() if name in body})
    result = HalfPixels()(model)
    assert not result.modified
    assert why in result.report.declined[0]
    assert kinds(result.model) == kinds(model)


def test_a_picture_that_is_not_cast_first_is_left_alone() -> None:
    model = build(
        "g (uint8[1,16,16,3] image) => (float16[1,3,16,16] r) "
        "{ t = Transpose<perm=[0,3,1,2]>(image) r = Cast<to=10>(t) }"
    )
    result = HalfPixels()(model)
    assert not result.modified
    assert "channel by channel" in result.report.declined[0]


def test_a_network_in_fp32_is_left_alone() -> None:
    model, _ = tiny_graph()
    assert not HalfPixels()(model).modified
