"""PReLU as depthwise convolutions, exact for every slope, or as the larger of x and s x."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.export.passes import default_passes
from edgeseg.graph.passes import GraphPass
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.prelu import PReluAsConvolutions, PReluAsMaximum
from tests.graph.passes.drawn import drawn, kinds, left_alone, rewritten


def _graph(before: str, weights: str, *, channels: int = 16, **given: NDArray[Any]) -> onnx.ModelProto:
    body = f"""g (float[1,{channels},5,4] x, {weights}) => (float[1,{channels},5,4] y)
    {{ {before} y = PRelu(a, slope) }}"""
    return drawn(body, **given)


def _slopes(*shape: int, top: float = 1.0) -> NDArray[Any]:
    return np.random.default_rng(5).uniform(-1.0, top, shape)


def test_slopes_up_to_one_take_two_convolutions() -> None:
    model = _graph("a = Tanh(x)", "float[16,1,1] slope", slope=_slopes(16, 1, 1))
    assert kinds(rewritten(model, PReluAsConvolutions())) == {"Tanh": 1, "Conv": 2, "Relu": 1, "Add": 1}


@settings(max_examples=8, deadline=None)
@given(top=st.sampled_from([0.3, 1.0, 2.5]), shape=st.sampled_from([(1, 16, 1, 1), (16, 1, 1), (1,), (1, 1, 1)]))
def test_any_slopes(top: float, shape: tuple[int, ...]) -> None:
    slope = np.full(shape, top) if 16 not in shape else _slopes(*shape, top=top)
    weights = f"float[{','.join(map(str, shape))}] slope"
    assert "PRelu" not in kinds(rewritten(_graph("a = Tanh(x)", weights, slope=slope), PReluAsConvolutions()))


@pytest.mark.parametrize("top", [1.0, 2.0])
def test_a_batch_norm_before_it_folds_in(top: float) -> None:
    norm = np.random.default_rng(2).uniform(0.5, 2.0, 16)
    before = "a = BatchNormalization<epsilon = 0.001>(x, f, f, f, f)"
    model = _graph(before, "float[16] f, float[16,1,1] slope", f=norm, slope=_slopes(16, 1, 1, top=top))
    assert "BatchNormalization" not in kinds(rewritten(model, PReluAsConvolutions()))


def test_a_depthwise_convolution_before_it_folds_in() -> None:
    before = "a = Conv<group = 16, pads = [1, 1, 1, 1]>(x, k, kb)"
    model = _graph(before, "float[16,1,3,3] k, float[16] kb, float[16,1,1] slope", slope=_slopes(16, 1, 1))
    assert kinds(rewritten(model, PReluAsConvolutions())) == {"Conv": 2, "Relu": 1, "Add": 1}


def test_a_dense_convolution_before_it_stays() -> None:
    model = _graph("a = Conv(x, k)", "float[16,16,1,1] k, float[16,1,1] slope", slope=_slopes(16, 1, 1))
    assert kinds(rewritten(model, PReluAsConvolutions()))["Conv"] == 3


@pytest.mark.parametrize("channels", [7, 16, 24])
@pytest.mark.parametrize("shape", [(1,), (-1, 1, 1), (1, -1, 1, 1)])
def test_it_is_the_larger_of_two_numbers(channels: int, shape: tuple[int, ...]) -> None:
    sizes = tuple(channels if size < 0 else size for size in shape)
    weights = f"float[{','.join(map(str, sizes))}] slope"
    model = _graph("a = Tanh(x)", weights, channels=channels, slope=_slopes(*sizes))
    step = PReluAsMaximum()
    assert kinds(rewritten(model, step)) == {"Tanh": 1, "Mul": 1, "Max": 1}
    feed = {"x": np.random.default_rng(3).normal(size=(1, channels, 5, 4)).astype(np.float32)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(step(model).model, feed)[0])


@pytest.mark.parametrize("channels", [7, 24])
def test_outside_the_blocked_layout_it_is_no_convolution(channels: int) -> None:
    slope = _slopes(channels, 1, 1)
    model = _graph("a = Tanh(x)", f"float[{channels},1,1] slope", channels=channels, slope=slope)
    left_alone(model, PReluAsConvolutions())


def test_slopes_above_one_are_no_maximum() -> None:
    model = _graph("a = Tanh(x)", "float[24,1,1] slope", channels=24, slope=np.full((24, 1, 1), 1.5))
    assert "above 1" in left_alone(model, PReluAsMaximum()).declined[0]


STEPS = [PReluAsConvolutions(), PReluAsMaximum()]


@pytest.mark.parametrize("step", STEPS)
def test_a_map_of_one_pixel_stays(step: GraphPass) -> None:
    body = "g (float[1,16,1,1] x, float[16,1,1] slope) => (float[1,16,1,1] y) { a = Tanh(x) y = PRelu(a, slope) }"
    left_alone(drawn(body, slope=_slopes(16, 1, 1)), step)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("weights", "channels", "before"),
    [
        ("float[24,1,4] slope", 24, "a = Tanh(x)"),
        ("float[16,5,4] slope", 16, "a = Tanh(x)"),
        ("float[4] slope", 16, "a = Tanh(x)"),
    ],
)
def test_other_shapes_stay(weights: str, channels: int, before: str, step: GraphPass) -> None:
    assert left_alone(_graph(before, weights, channels=channels), step).declined


@pytest.mark.parametrize("step", STEPS)
def test_slopes_that_are_computed_stay(step: GraphPass) -> None:
    body = """g (float[1,16,5,4] x, float[16,1,1] slope) => (float[1,16,5,4] y)
    { t = Tanh(slope) y = PRelu(x, t) }"""
    assert "not constant" in left_alone(drawn(body), step).declined[0]


def test_it_is_no_default_since_other_engines_have_a_fused_prelu() -> None:
    assert not any("PRelu" in step.name for step in default_passes())
