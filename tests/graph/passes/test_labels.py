"""Graphs that end in labels: the same labels as resizing and taking the largest."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes import AppendLabels
from edgeseg.graph.run import run_graph
from edgeseg.specs import PostprocessSpec
from tests.export.graphs import parse


def _plain() -> onnx.ModelProto:
    return parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { logits = Relu(x) }")


@pytest.mark.parametrize("form", ["resize", "bands"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 300])
def test_labels_graph_equals_resize_and_argmax(
    align_corners: bool, channels: int, form: Literal["resize", "bands"]
) -> None:
    torch = pytest.importorskip("torch")
    model = parse(f"g (float[1,{channels},4,6] x) => (float[1,{channels},4,6] logits) {{ logits = Tanh(x) }}")
    feed = np.random.default_rng(1).normal(size=(1, channels, 4, 6)).astype(np.float32)
    result = AppendLabels((70, 17), PostprocessSpec(align_corners, threshold=0.1), form=form)(model)
    (logits,), (labels,) = run_graph(model, {"x": feed}), run_graph(result.model, {"x": feed})
    big = torch.nn.functional.interpolate(
        torch.from_numpy(logits), (70, 17), mode="bilinear", align_corners=align_corners
    )
    expected = big.argmax(1) if channels > 1 else (big[:, 0] > 0.1).long()
    assert labels.dtype == (np.uint8 if channels < 256 else np.int32)
    assert labels.shape == (1, 70, 17)
    assert np.mean(labels != expected.numpy()) <= 1 / labels.size  # one pixel may lie on a boundary


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_in_half_are_resized_in_float(channels: int) -> None:
    body = f"g (float[1,{channels},4,6] x) => (float16[1,{channels},4,6] logits) {{ logits = Cast <to = 10> (x) }}"
    feed = {"x": np.random.default_rng(1).normal(size=(1, channels, 4, 6)).astype(np.float32)}
    half = parse(body)
    ends = "h = Cast <to = 10> (x) logits = Cast <to = 1> (h)"
    single = parse(body.replace("float16", "float").replace("logits = Cast <to = 10> (x)", ends))
    forms: tuple[Literal["resize", "bands"], ...] = ("resize", "bands")
    for form in forms:
        made = [AppendLabels((70, 17), PostprocessSpec(False, 0.1), form=form)(graph).model for graph in (half, single)]
        onnx.checker.check_model(made[0], full_check=True)
        labels, wanted = (run_graph(graph, feed)[0] for graph in made)
        assert np.mean(labels != wanted) <= 1 / labels.size


def test_both_forms_label_a_batch_alike() -> None:
    model = parse("g (float[2,3,4,6] x) => (float[2,3,4,6] logits) { logits = Tanh(x) }")
    feed = np.random.default_rng(1).normal(size=(2, 3, 4, 6)).astype(np.float32)
    (resized,) = run_graph(AppendLabels((9, 11), PostprocessSpec())(model).model, {"x": feed})
    (in_bands,) = run_graph(AppendLabels((9, 11), PostprocessSpec(), form="bands")(model).model, {"x": feed})
    assert resized.shape == (2, 9, 11)
    assert np.array_equal(resized, in_bands)


def test_labels_graph_without_resize_where_the_size_is_the_logits() -> None:
    result = AppendLabels((4, 6), PostprocessSpec())(_plain())
    assert "Resize" not in [node.op_type for node in result.model.graph.node]


def test_labels_graph_declines_what_it_cannot_end() -> None:
    free = parse("g (float[1,3,H,W] x) => (float[1,3,H,W] logits) { logits = Relu(x) }")
    once = AppendLabels((8, 8), PostprocessSpec())(_plain()).model
    other = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] y) { y = Relu(x) }")
    for model, reason in ((free, "fixed size"), (once, "already"), (other, "no output 'logits'")):
        result = AppendLabels((8, 8), PostprocessSpec())(model)
        assert not result.modified
        assert reason in result.report.reason


@pytest.mark.parametrize("form", ["resize", "bands"])
def test_an_inner_value_may_bear_the_outputs_name(form: Literal["resize", "bands"]) -> None:
    model = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { labels = Tanh(x) logits = Neg(labels) }")
    made = AppendLabels((9, 11), PostprocessSpec(), form=form)(model).model
    onnx.checker.check_model(made, full_check=True)
    assert [value.name for value in made.graph.output] == ["labels"]
