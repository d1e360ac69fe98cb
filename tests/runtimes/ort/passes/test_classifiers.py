"""Classifiers as products of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.classifiers import ClassifiersAsProducts
from tests.graph.passes.tools import kinds
from tests.runtimes.ort.passes.quantised import convolution, numbers, rewritten_by


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("own", [False, True])
def test_a_classifier_becomes_a_product_of_integers(bias: bool, own: bool) -> None:
    model = convolution((1, 8, 6, 10), 3, (1, 1), bias=bias, own=own, end="Sigmoid")
    rewritten = rewritten_by(ClassifiersAsProducts, model)
    onnx.checker.check_model(rewritten)
    assert "Conv" not in kinds(rewritten)
    assert "MatMulInteger" in kinds(rewritten)
    feed = {"x": numbers(2, 1, 8, 6, 10)}  # ONNX's own product: ONNX Runtime's overflows on x86 without VNNI
    got: Any = ReferenceEvaluator(rewritten).run(None, feed)
    np.testing.assert_allclose(got[0], run_graph(model, feed)[0], atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        convolution((1, 8, 6, 10), 3, (1, 1)),
        convolution((1, 8, 6, 10), 8, (1, 1), end="Sigmoid"),
        convolution((1, 8, 6, 10), 3, (3, 3), pads=(1, 1, 1, 1), end="Sigmoid"),
        convolution((1, 8, 6, 10), 4, (1, 1), group=2, end="Sigmoid"),
    ],
    ids=["quantised output", "as many outputs", "3x3", "groups"],
)
def test_other_convolutions_stay(model: onnx.ModelProto) -> None:
    assert kinds(rewritten_by(ClassifiersAsProducts, model)) == kinds(model)
