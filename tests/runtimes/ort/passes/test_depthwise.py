"""Repeated channels and a few groups as convolutions that have a kernel: the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.depthwise import FullForGrouped, RepeatForDepthwise
from tests.graph.passes.tools import kinds
from tests.runtimes.ort.passes.quantised import convolution, numbers, rewritten_by, weights_of


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_channels_are_repeated_for_a_depthwise_convolution(own: bool, bias: bool) -> None:
    model = convolution((1, 8, 6, 10), 24, (3, 3), pads=(1, 1, 1, 1), group=8, own=own, bias=bias)
    rewritten = rewritten_by(RepeatForDepthwise, model)
    onnx.checker.check_model(rewritten)
    groups = [attribute.i for node in rewritten.graph.node for attribute in node.attribute if attribute.name == "group"]
    assert groups == [24]
    feed = {"x": numbers(2, 1, 8, 6, 10)}
    assert np.array_equal(run_graph(rewritten, feed)[0], run_graph(model, feed)[0])


@pytest.mark.parametrize(
    "model",
    [
        convolution((1, 8, 6, 10), 8, (3, 3), pads=(1, 1, 1, 1), group=8),
        convolution((1, 8, 6, 10), 24, (3, 3), pads=(1, 1, 1, 1), group=8, end="Sigmoid"),
        convolution((1, 8, 6, 10), 24, (3, 3), pads=(1, 1, 1, 1), group=4),
    ],
    ids=["one output each", "float output", "two inputs each"],
)
def test_elsewhere_nothing_is_repeated(model: onnx.ModelProto) -> None:
    assert kinds(rewritten_by(RepeatForDepthwise, model)) == kinds(model)


@settings(max_examples=20, deadline=None)
@given(channels=st.integers(2, 4), own=st.booleans())
def test_a_few_depthwise_channels_become_full_ones(channels: int, own: bool) -> None:
    model = convolution((1, channels, 8, 16), channels, (3, 3), pads=(1, 1, 1, 1), group=channels, own=own)
    rewritten = rewritten_by(FullForGrouped, model)
    assert weights_of(rewritten) == [(channels, channels, 3, 3)]
    feed = {"x": numbers(4, 1, channels, 8, 16)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


@settings(max_examples=20, deadline=None)
@given(group=st.integers(2, 8), inputs=st.integers(2, 4), outputs=st.integers(1, 3), own=st.booleans())
def test_a_few_groups_become_a_full_convolution(group: int, inputs: int, outputs: int, own: bool) -> None:
    model = convolution((1, group * inputs, 5, 6), group * outputs, (3, 3), pads=(1, 1, 1, 1), group=group, own=own)
    rewritten = rewritten_by(FullForGrouped, model)
    assert weights_of(rewritten) == [(group * outputs, group * inputs, 3, 3)]
    feed = {"x": numbers(4, 1, group * inputs, 5, 6)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


@pytest.mark.parametrize(("channels", "group"), [(8, 8), (32, 16)])
def test_other_grouped_convolutions_stay(channels: int, group: int) -> None:
    model = convolution((1, channels, 8, 16), group, (3, 3), pads=(1, 1, 1, 1), group=group)
    assert weights_of(rewritten_by(FullForGrouped, model)) == weights_of(model)
