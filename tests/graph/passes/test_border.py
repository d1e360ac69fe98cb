"""Spread pixels leave the concat before a padded convolution; the frame of the border is exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.passes import ConvolveBroadcast
from tests.graph.passes.tools import build, in_double, kinds, normal, proved


def _pooled(
    size: tuple[int, int] = (16, 24),
    *,
    kernel: int = 3,
    dilation: int = 1,
    spread: str = "Expand(p, to)",
    options: str = "",
    pads: int | None = None,
    maps: int = 1,
) -> onnx.ModelProto:
    pad = dilation * (kernel // 2) if pads is None else pads
    out = tuple(side + 2 * pad - dilation * (kernel - 1) for side in size)
    conv = f"Conv<pads=[{pad},{pad},{pad},{pad}], dilations=[{dilation},{dilation}]{options}>"
    concat = f"Concat<axis=1>({'x, ' * maps}e)"
    body = f"q = GlobalAveragePool(x) p = Tanh(q) e = {spread} c = {concat} y = {conv}(c, w, b)"
    return build(
        f"g (float[1,16,{size[0]},{size[1]}] x) => (float[1,8,{out[0]},{out[1]}] y) {{ {body} }}",
        to=np.array([1, 16, *size], np.int64),
        w=normal(8, 16 * (maps + 1), kernel, kernel),
        b=normal(8),
    )


@pytest.mark.parametrize("spread", ["Expand(p, to)", 'Resize<mode="linear">(p, , , to)'])
def test_the_spread_pixel_is_convolved_alone(spread: str) -> None:
    rewritten, _ = proved(_pooled((32, 48), spread=spread), ConvolveBroadcast())
    found = kinds(rewritten)
    assert "Concat" not in found
    assert found.count("Gather") == 2
    assert in_double(_pooled((32, 48), spread=spread), ConvolveBroadcast()) < 1e-12


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(20, 26),
    width=st.integers(20, 26),
    kernel=st.sampled_from([3, 5]),
    dilation=st.integers(1, 3),
)
def test_any_kernel_and_dilation_keeps_its_numbers(height: int, width: int, kernel: int, dilation: int) -> None:
    proved(_pooled((height, width), kernel=kernel, dilation=dilation), ConvolveBroadcast())


@pytest.mark.parametrize(
    "model",
    [_pooled((3, 3)), _pooled(pads=0), _pooled(pads=2), _pooled(spread="Mul(x, p)")],
    ids=["smaller than its frame", "unpadded", "grows", "not spread"],
)
def test_it_declines(model: onnx.ModelProto) -> None:
    assert not ConvolveBroadcast()(model).modified


def test_a_spread_part_too_small_to_pay_for_a_sum_stays() -> None:
    assert ConvolveBroadcast()(_pooled((32, 48), maps=3)).modified
    assert not ConvolveBroadcast()(_pooled((32, 48), maps=4)).modified
