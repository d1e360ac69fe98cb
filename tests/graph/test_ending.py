"""Which operator makes a graph's output a probability."""

from __future__ import annotations

import pytest

from edgeseg.graph.ending import last_activation
from tests.export.graphs import parse


@pytest.mark.parametrize(
    ("body", "last"),
    [
        ("y = Sigmoid(x)", "Sigmoid"),
        ("y = HardSigmoid(x)", "HardSigmoid"),
        ("y = Softmax<axis = 1>(x)", "Softmax"),
        ("a = Sigmoid(x) b = Transpose<perm = [0, 1, 3, 2]>(a) y = Transpose<perm = [0, 1, 3, 2]>(b)", "Sigmoid"),
        ("a = Sigmoid(x) y = Clip(a)", "Sigmoid"),
        ("a = Softmax<axis = 1>(x) b = Cast<to = 10>(a) y = Cast<to = 1>(b)", "Softmax"),
        ("a = Sigmoid(x) s = Constant<value_floats = [1.0, 1.0, 1.0, 1.0]>() y = Resize(a, , s)", "Sigmoid"),
        ("y = Tanh(x)", ""),
        ("y = Identity(x)", ""),
        ("a = Sigmoid(x) y = Mul(a, x)", ""),
        ("a = Sigmoid(x) y = Relu(a)", ""),
        ("a = Sigmoid(x) b = Tanh(x) y = Concat<axis = 1>(a, b)", ""),
    ],
)
def test_the_last_activation(body: str, last: str) -> None:
    channels = 6 if "Concat" in body else 3
    model = parse(f"g (float[1,3,4,6] x) => (float[1,{channels},4,6] y) {{ {body} }}")
    assert last_activation(model) == last
