"""Coarse averages come from finer ones where windows nest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.passes import NestPools
from tests.graph.passes.drawn import drawn, kinds, left_alone, proved, rewritten

C = 64


def _pool(kernel: tuple[int, int], more: str = "", *, strides: tuple[int, int] | None = None) -> str:
    return f"AveragePool<kernel_shape = {list(kernel)}, strides = {list(strides or kernel)}{more}>"


def _pyramid(
    fine: str, coarse: str, sizes: tuple[str, str], *, kind: str = "float", map_size: str = "24,36"
) -> onnx.ModelProto:
    body = f"""g ({kind}[1,{C},{map_size}] x, int64[2] axes) => ({kind}[1,{C},{sizes[0]}] y, {kind}[1,{C},{sizes[1]}] z)
    {{ y = {fine}(x) z = {coarse} }}"""
    return drawn(body, axes=np.array([2, -1]))


def _source_of(model: onnx.ModelProto, output: str) -> str:
    return str(next(node.input[0] for node in model.graph.node if output in node.output))


@pytest.mark.parametrize(
    ("coarse", "size"),
    [
        (f"{_pool((8, 12))}(x)", "3,3"),
        (f"{_pool((24, 36))}(x)", "1,1"),
        ("GlobalAveragePool(x)", "1,1"),
        ("ReduceMean<keepdims = 1>(x, axes)", "1,1"),
    ],
)
def test_a_coarse_average_reads_the_fine_one(coarse: str, size: str) -> None:
    model = _pyramid(_pool((4, 6)), coarse, ("6,6", size))
    changed = rewritten(model, NestPools())
    assert _source_of(changed, "z") == "y"
    assert kinds(changed) == kinds(model)


def test_it_is_exact_in_float64() -> None:
    proved(_pyramid(_pool((4, 6)), f"{_pool((8, 12))}(x)", ("6,6", "3,3"), kind="double"), NestPools())


def test_each_level_reads_the_one_before() -> None:
    body = f"""g (float[1,{C},24,24] x)
    => (float[1,{C},1,1] a, float[1,{C},2,2] b, float[1,{C},6,6] c)
    {{ a = GlobalAveragePool(x) b = {_pool((12, 12))}(x) c = {_pool((4, 4))}(x) }}"""
    changed = rewritten(drawn(body), NestPools())
    assert [_source_of(changed, name) for name in "abc"] == ["b", "c", "x"]


@settings(max_examples=8, deadline=None)
@given(fine=st.tuples(st.integers(1, 3), st.integers(2, 3)), ratio=st.tuples(st.integers(1, 3), st.integers(2, 3)))
def test_any_windows_that_nest(fine: tuple[int, int], ratio: tuple[int, int]) -> None:
    coarse = (fine[0] * ratio[0], fine[1] * ratio[1])
    sizes = tuple(f"{36 // kernel[0]},{36 // kernel[1]}" for kernel in (fine, coarse))
    model = _pyramid(_pool(fine), f"{_pool(coarse)}(x)", (sizes[0], sizes[1]), map_size="36,36")
    assert _source_of(rewritten(model, NestPools()), "z") == "y"


@pytest.mark.parametrize(
    ("fine", "coarse", "sizes"),
    [
        (_pool((8, 12)), f"{_pool((12, 18))}(x)", ("3,3", "2,2")),
        (_pool((4, 6), strides=(2, 6)), f"{_pool((8, 12))}(x)", ("11,6", "3,3")),
        (_pool((5, 6)), f"{_pool((10, 12))}(x)", ("4,6", "2,3")),
        (_pool((4, 6), ", pads = [0, 0, 0, 1]"), f"{_pool((8, 12))}(x)", ("6,6", "3,3")),
        (_pool((4, 6)), "MaxPool<kernel_shape = [8, 12], strides = [8, 12]>(x)", ("6,6", "3,3")),
        (_pool((4, 6)), "ReduceMax<keepdims = 1>(x, axes)", ("6,6", "1,1")),
    ],
)
def test_windows_that_do_not_nest_stay(fine: str, coarse: str, sizes: tuple[str, str]) -> None:
    left_alone(_pyramid(fine, coarse, sizes), NestPools())


def test_averages_of_different_maps_stay() -> None:
    body = f"""g (float[1,4,8,8] x) => (float[1,4,4,4] y, float[1,4,1,1] z)
    {{ r = Relu(x) y = {_pool((2, 2))}(x) z = GlobalAveragePool(r) }}"""
    left_alone(drawn(body), NestPools())


def test_free_sizes_are_declined() -> None:
    body = f"""g (float[1,4,H,W] x) => (float[1,4,A,B] y, float[1,4,1,1] z)
    {{ y = {_pool((2, 2))}(x) z = GlobalAveragePool(x) }}"""
    left_alone(drawn(body), NestPools())
