"""A ReLU of what is not negative goes; any other stays."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.graph.passes import DropRepeatedRelu
from tests.graph.passes.drawn import drawn, kinds, left_alone, rewritten

HEAD = "g (float[1,4,6,6] x, float lo, float hi, float below, float[4] scales, float[1,4,1,1] k) => "
GIVEN = {
    "lo": np.array(0.0),
    "hi": np.array(6.0),
    "below": np.array(-1.0),
    "scales": np.array([1.0, 1.0, 2.0, 2.0]),
    "k": np.array([1.0, 0.0, 2.0, 3.0]).reshape(1, 4, 1, 1),
}


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("a = Relu(x) y = Relu(a)", "6,6"),
        ("a = Relu(x) b = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a) y = Relu(b)", "3,3"),
        ('a = Relu(x) b = Resize<mode = "linear">(a, , scales) y = Relu(b)', "12,12"),
        ("a = Relu(x) b = Sigmoid(x) c = Mul(a, b) d = Add(c, k) y = Relu(d)", "6,6"),
        ("a = Clip(x, lo, hi) y = Relu(a)", "6,6"),
    ],
)
def test_what_is_not_negative_needs_no_relu(body: str, size: str) -> None:
    model = drawn(f"{HEAD} (float[1,4,{size}] y) {{ {body} }}", **GIVEN)
    changed = rewritten(model, DropRepeatedRelu())
    assert kinds(changed)["Relu"] == kinds(model)["Relu"] - 1


def test_relu6_needs_no_relu_before_it() -> None:
    changed = rewritten(
        drawn(f"{HEAD} (float[1,4,6,6] y) {{ a = Relu(x) y = Clip(a, lo, hi) }}", **GIVEN), DropRepeatedRelu()
    )
    assert kinds(changed) == {"Clip": 1}


def test_a_concatenation_of_relus() -> None:
    body = f"{HEAD} (float[1,8,6,6] y) {{ a = Relu(x) b = Abs(x) c = Concat<axis = 1>(a, b) y = Relu(c) }}"
    assert kinds(rewritten(drawn(body, **GIVEN), DropRepeatedRelu())) == {"Relu": 1, "Abs": 1, "Concat": 1}


@pytest.mark.parametrize(
    "body",
    [
        "a = Tanh(x) y = Relu(a)",
        'a = Relu(x) b = Resize<mode = "cubic">(a, , scales) y = Relu(b)',
        "a = Relu(x) b = Sub(a, k) y = Relu(b)",
        "a = Relu(x) b = Add(a, x) y = Relu(b)",
        "a = Clip(x, below, hi) y = Relu(a)",
        "a = Relu(x) y = Clip(a, below, hi)",
        "a = Clip(x, , hi) y = Relu(a)",
    ],
)
def test_what_may_be_negative_keeps_its_relu(body: str) -> None:
    size = "12,12" if "Resize" in body else "6,6"
    left_alone(drawn(f"{HEAD} (float[1,4,{size}] y) {{ {body} }}", **GIVEN), DropRepeatedRelu())


def test_a_relu_before_a_clip_that_is_read_elsewhere_stays() -> None:
    body = f"{HEAD} (float[1,4,6,6] y, float[1,4,6,6] z) {{ a = Relu(x) y = Clip(a, lo, hi) z = Neg(a) }}"
    left_alone(drawn(body, **GIVEN), DropRepeatedRelu())
