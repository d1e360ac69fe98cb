"""The first convolution of several pixels at a time: the same numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.stems import FoldStems
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import convolution, numbers, rewritten_by, weights_of


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 4),
    outputs=st.sampled_from([2, 3, 8, 16, 20]),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 4])),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    end=st.sampled_from(["", "Relu", "Clip"]),
    own=st.booleans(),
    bias=st.booleans(),
)
def test_a_folded_convolution_gives_the_same_numbers(
    channels: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: tuple[int, int, int, int],
    end: str,
    own: bool,
    bias: bool,
) -> None:
    model = convolution((1, channels, 7, 16), outputs, kernel, strides=stride, pads=pads, end=end, own=own, bias=bias)
    rewritten = rewritten_by(FoldStems, model)
    onnx.checker.check_model(rewritten, full_check=True)
    feed = {"x": numbers(3, 1, channels, 7, 16)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


@pytest.mark.parametrize(("stride", "outputs", "wide"), [(2, 64, (128, 12, 3, 2)), (1, 16, (64, 12, 3, 3))])
def test_three_channels_become_twelve(stride: int, outputs: int, wide: tuple[int, ...]) -> None:
    model = convolution((1, 3, 8, 16), outputs, (3, 3), strides=(stride, stride), pads=(1, 1, 1, 1))
    assert weights_of(rewritten_by(FoldStems, model)) == [wide]


def test_two_stems_share_the_folded_picture() -> None:
    one = convolution((1, 3, 8, 16), 16, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    model = onnx.ModelProto()
    model.CopyFrom(one)
    second = [onnx.NodeProto.FromString(node.SerializeToString()) for node in one.graph.node[-3:]]
    for node in second:
        node.name += "_second"
        node.input[0] = {"c": "c2", "r_q": "r2_q"}.get(node.input[0], node.input[0])
        node.output[0] = {"c": "c2", "r_q": "r2_q", "r": "r2"}[node.output[0]]
    model.graph.node.extend(second)
    model.graph.output.add().CopyFrom(one.graph.output[0])
    model.graph.output[1].name = "r2"
    rewritten = rewritten_by(FoldStems, model)
    assert kinds(rewritten).count("Reshape") == 3  # one of the picture, one of each output
    feed = {"x": numbers(3, 1, 3, 8, 16)}
    before, after = run_graph(model, feed), run_graph(rewritten, feed)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "model",
    [
        convolution((1, 3, 8, 15), 16, (3, 3), pads=(1, 1, 1, 1)),
        convolution((1, 8, 8, 16), 16, (3, 3), pads=(1, 1, 1, 1)),
        convolution((1, 4, 8, 16), 16, (3, 3), pads=(1, 1, 1, 1)),
        convolution((1, 3, 8, 16), 16, (3, 3), pads=(1, 1, 1, 1), end="Sigmoid"),
        convolution((1, 3, 8, 16), 3, (3, 3), pads=(1, 1, 1, 1), group=3),
        convolution((1, 3, 8, 16), 16, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2)),
        convolution((1, 3, 8, 16), 16, (3, 3), pads=(1, 1, 1, 1), width="W"),
    ],
    ids=["width does not divide", "eight channels", "aligned", "float output", "groups", "dilation", "free width"],
)
def test_other_convolutions_are_not_folded(model: onnx.ModelProto) -> None:
    assert kinds(rewritten_by(FoldStems, model)) == kinds(model)


def test_nothing_to_fold_in_a_float_graph() -> None:
    model = build("g (float[1,3,8,16] x) => (float[1,3,8,16] r) { r = Relu(x) }")
    assert kinds(rewritten_by(FoldStems, model)) == ["Relu"]
