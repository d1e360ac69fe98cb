"""The int8 passes for ONNX Runtime as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeseg.export.precision.int8 import quantise
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes import INT8_PASSES
from edgeseg.runtimes.ort.passes.unsigned import UnsignedActivations
from tests.export.precision.pictures import images, smooth, tiny_graph, write_pictures
from tests.graph.passes.tools import build, kinds
from tests.runtimes.ort.passes.quantised import SCALE, ZERO, constants, formed, numbers, overflows, quantised


def _weight(stem: str, attributes: str = "axis=0") -> str:
    return f"{stem} = DequantizeLinear<{attributes}>({stem}_q, {stem}_s, {stem}_z)"


def _network(height: str = "16", width: str = "32") -> onnx.ModelProto:
    """A network in which every int8 pass has something to do; its scales are powers of two, its activations int8."""
    body = f"""
        f = Cast<to=1>(image) t = Transpose<perm=[0,3,1,2]>(f) n = Mul(t, factor) x = Add(n, shift)
        {quantised("x", "x0")} {_weight("stem")}
        c0 = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x0, stem) d0 = Relu(c0) {quantised("d0", "a")}
        p0 = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a) {quantised("p0", "p")}
        {_weight("twice")} c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=12>(p, twice) {quantised("c1", "b")}
        {_weight("four")} c2 = Conv<kernel_shape=[1,1], group=4>(b, four) {quantised("c2", "c")}
        {_weight("mix")} c3 = Conv<kernel_shape=[1,1]>(c, mix) e0 = PRelu(c3, slopes) {quantised("e0", "e")}
        {_weight("swish")} c4 = Conv<kernel_shape=[1,1]>(e, swish) g0 = HardSwish(c4) {quantised("g0", "g")}
        m = Concat<axis=1>(e, g) {_weight("joined")} c5 = Conv<kernel_shape=[1,1]>(m, joined) h0 = Relu(c5)
        {quantised("h0", "h")} {_weight("classes")} c6 = Conv<kernel_shape=[1,1]>(h, classes)
        y = Sigmoid(c6) {_weight("last")} logits = Conv<kernel_shape=[1,1]>(y, last)
    """
    shapes = {"stem": (12, 3, 3), "twice": (24, 1, 3), "four": (24, 6, 1), "mix": (16, 24, 1), "swish": (16, 16, 1)}
    shapes |= {"joined": (16, 32, 1), "classes": (5, 16, 1), "last": (5, 5, 1)}
    held: dict[str, Any] = {"factor": numbers(1, 1, 3, 1, 1) / 64, "shift": numbers(2, 1, 3, 1, 1)}
    for seed, (stem, (outputs, inputs, side)) in enumerate(shapes.items()):
        held |= constants(outputs, inputs, (side, side), stem=stem, seed=seed)
        held[f"{stem}_s"] *= 8 if side == 1 else 2
    held |= {"z": np.array(0, np.int8), "slopes": np.full((16, 1, 1), 0.25, np.float32)}
    given = f"uint8[1,{height},{width},3] image"
    model = build(f"g ({given}) => (float[1,5,H,W] logits) {{ {body} }}", **held)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return model


PICTURE = {"image": np.random.default_rng(6).integers(0, 256, (1, 16, 32, 3), dtype=np.uint8)}


def test_every_pass_says_how_its_numbers_are_held_to_those_before() -> None:
    assert len({step.__name__ for step in INT8_PASSES}) == len(INT8_PASSES) == 14
    for step in INT8_PASSES:
        assert 0 < step.allowed_drop < 0.05 if step.kind == "rounding" else step.allowed_drop == 0


def test_every_pass_changes_the_graph_and_only_rounding_ones_its_numbers() -> None:
    model = _network()
    for step in INT8_PASSES[:-2]:  # the last two are for what stays float, of which there is none here
        result = step()(model)
        assert result.modified, step.__name__
        onnx.checker.check_model(result.model, full_check=True)
        if not overflows() or "MatMulInteger" not in kinds(result.model):
            before, after = run_graph(model, PICTURE)[0], run_graph(result.model, PICTURE)[0]
            moved = np.abs(after - before).max() / np.ptp(before)
            assert moved <= (1e-5 if step.kind == "exact" else 0.1), step.__name__
        model = result.model


@pytest.mark.parametrize(("height", "width"), [("16", "32"), ("H", "32"), ("H", "W")])
def test_one_editor_for_many_passes_gives_the_graph_of_one_after_another(height: str, width: str) -> None:
    model = _network(height, width)
    given = model.SerializeToString()
    expected = model
    for kind in INT8_PASSES:
        expected = kind()(expected).model
    got = formed(model)
    assert model.SerializeToString() == given
    assert kinds(got) == kinds(expected)
    assert _constants(got) == _constants(expected)
    assert np.array_equal(run_graph(got, PICTURE)[0], run_graph(expected, PICTURE)[0])


def _constants(model: onnx.ModelProto) -> list[tuple[str, bytes]]:
    """Shapes, types and numbers of all constants, in an order that does not depend on names."""
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return sorted((f"{array.dtype} {array.shape}", array.tobytes()) for array in arrays)


def test_a_network_keeps_its_labels(tmp_path: Path) -> None:
    model, _ = tiny_graph()
    quantised = quantise(model, images(write_pictures(tmp_path / "calib", 4)))
    feed: dict[str, Any] = {"image": smooth(20)[None]}
    unsigned = UnsignedActivations()(quantised).model
    before, after = run_graph(unsigned, feed)[0], run_graph(formed(quantised), feed)[0]
    assert np.mean(before.argmax(1) == after.argmax(1)) >= 0.99
    assert "_wide" in str([tensor.name for tensor in formed(quantised).graph.initializer])


def test_a_float_graph_is_left_alone() -> None:
    model, _ = tiny_graph()
    assert kinds(formed(model)) == kinds(model)


@pytest.mark.parametrize(("outputs", "group"), [(3, 1), (16, 8), (12, 4), (8, 8), (16, 1)])
@pytest.mark.parametrize("end", ["r = Sigmoid(c)", quantised("c", "r"), f"p = PRelu(c, k) {quantised('p', 'r')}"])
def test_convolutions_along_one_axis_keep_their_numbers(outputs: int, group: int, end: str) -> None:
    weight = np.random.default_rng(8).integers(-127, 128, (outputs, 8 // group, 1)).astype(np.int8)
    body = f"{quantised('x', 'a')} w = DequantizeLinear(w_q, ws, wz) c = Conv<group={group}>(a, w) {end}"
    model = build(
        f"g (float[1,8,10] x) => (float[1,{outputs},10] r) {{ {body} }}",
        s=SCALE,
        z=ZERO,
        w_q=weight,
        ws=np.array(0.002, np.float32),
        wz=np.array(0, np.int8),
        k=np.full((outputs, 1), 0.25, np.float32),
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    feed = {"x": numbers(3, 1, 8, 10)}
    steps = np.abs(run_graph(model, feed)[0] - run_graph(formed(model), feed)[0]) / SCALE
    assert steps.max() <= 1.01
    assert np.mean(steps > 0.01) <= 0.02  # ties of rounding
