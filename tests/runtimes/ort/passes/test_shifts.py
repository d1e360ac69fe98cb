"""The picture shifted by whole rows: the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.shifts import WidenShifts
from tests.graph.passes.tools import build
from tests.runtimes.ort.passes.quantised import numbers, rewritten_by


@pytest.mark.parametrize(("width", "wide"), [("10", True), ("W", False)])
def test_a_shift_of_the_picture_is_repeated_for_every_column(width: str, wide: bool) -> None:
    body = "f = Cast<to=1>(image) t = Transpose<perm=[0,3,1,2]>(f) k = Mul(t, factor) r = Add(k, shift)"
    model = build(
        f"g (uint8[1,6,{width},3] image) => (float[1,3,6,{width}] r) {{ {body} }}",
        factor=numbers(4, 1, 3, 1, 1),
        shift=numbers(5, 1, 3, 1, 1),
    )
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    rewritten = rewritten_by(WidenShifts, model)
    shapes = {tuple(tensor.dims) for tensor in rewritten.graph.initializer}
    assert shapes == ({(1, 3, 1, 10)} if wide else {(1, 3, 1, 1)})
    feed = {"image": np.random.default_rng(6).integers(0, 256, (1, 6, 10, 3), dtype=np.uint8)}
    assert np.array_equal(run_graph(model, feed)[0], run_graph(rewritten, feed)[0])


def test_shifts_after_the_first_operator_stay() -> None:
    model = build(
        "g (uint8[1,6,10,3] image) => (float[1,3,6,10] r) "
        "{ f = Cast<to=1>(image) t = Transpose<perm=[0,3,1,2]>(f) k = Relu(t) r = Add(k, shift) }",
        shift=numbers(5, 1, 3, 1, 1),
    )
    assert rewritten_by(WidenShifts, model) is model
