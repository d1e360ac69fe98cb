"""A last resize is peeled off, and nothing else is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes.peel import peel_trailing_resize
from edgeseg.graph.run import run_graph
from tests.export.graphs import parse

IMAGE = {"x": np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)}


def _plain() -> onnx.ModelProto:
    return parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { logits = Relu(x) }")


def _resized(
    mode: str = "linear", transform: str = "half_pixel", after: str = "", size: str = "1,3,8,12"
) -> onnx.ModelProto:
    last = "logits = Relu(big)" if after else ""
    out = "big" if after else "logits"
    return parse(
        f"g (float[1,3,4,6] x) => (float[{size}] logits) <int64[4] to = {{{size}}}> {{ a = Tanh(x) "
        f'{out} = Resize<mode="{mode}", coordinate_transformation_mode="{transform}">(a, , , to) {last} }}'
    )


@pytest.mark.parametrize(
    ("transform", "align"), [("half_pixel", False), ("pytorch_half_pixel", False), ("align_corners", True)]
)
def test_peel_removes_a_last_resize_and_says_how_it_sampled(transform: str, align: bool) -> None:
    peeled = peel_trailing_resize(_resized(transform=transform), (8, 12))
    assert peeled is not None
    model, found = peeled
    onnx.checker.check_model(model)
    assert found is align
    np.testing.assert_allclose(run_graph(model, IMAGE)[0], np.tanh(IMAGE["x"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (_resized(mode="nearest"), (8, 12)),
        (_resized(transform="asymmetric"), (8, 12)),
        (_resized(after="relu"), (8, 12)),
        (_resized(), (16, 24)),
        (_plain(), (4, 6)),
    ],
)
def test_peel_declines_anything_else(model: onnx.ModelProto, size: tuple[int, int]) -> None:
    assert peel_trailing_resize(model, size) is None
