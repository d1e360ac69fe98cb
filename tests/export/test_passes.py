"""Every pass proves itself: what it rewrites, what it declines, and that a wrong one is undone."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeseg.export.graph.run import run_graph
from edgeseg.export.passes import AppendLabels, MergeDuplicates, Pass, RemoveUnused, StripNotes, run_passes
from edgeseg.export.passes.peel import peel_trailing_resize
from edgeseg.specs import PostprocessSpec
from tests.export.graphs import parse

IMAGE = {"x": np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)}


class _Scale(Pass):
    """Multiplies the result: a wrong rewrite."""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].op_type = "Neg"
        return changed


class _Broken(Pass):
    """Leaves a graph no engine takes."""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].input[0] = "nothing"
        return changed


class _NotANumber(Pass):
    """Gives a result that no comparison finds larger than anything."""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        return parse(
            "g (float[1,3,4,6] x) => (float[1,3,4,6] logits) "
            "{ z = Sub(x, x) r = Relu(x) n = Div(z, z) logits = Add(r, n) }"
        )


class _Failing(Pass):
    """Meets a graph that nobody thought of."""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        raise KeyError("axes")


def _plain() -> onnx.ModelProto:
    return parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { logits = Relu(x) }")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (_Scale(), "moved by"),
        (_Broken(), "ONNX Runtime refuses"),
        (_NotANumber(), "moved by inf"),
        (_Failing(), "undone: KeyError: 'axes'"),
    ],
)
def test_a_pass_that_does_not_hold_is_undone(step: Pass, reason: str) -> None:
    model, (report,) = run_passes(_plain(), [step], IMAGE)
    assert not report.modified
    assert reason in report.reason
    assert model.graph.node[0].op_type == "Relu"
    assert model.graph.node[0].input[0] == "x"


class _Nudge(Pass):
    """Moves the result by a constant."""

    def __init__(self, by: float) -> None:
        self._by = by

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        return parse(
            "g (float[1,3,4,6] x) => (float[1,3,4,6] logits) "
            f"<float by = {{{self._by}}}> {{ a = Relu(x) logits = Add(a, by) }}"
        )


@pytest.mark.parametrize(
    ("off", "by", "holds"),
    [
        (1e-3, 1e-3, True),  # towards the exact output
        (1e-3, -0.9e-3, True),  # away from it, within what rounding explains
        (1e-3, -1.1e-3, False),
        (1e-6, 1e-3, False),  # the first graph was exact: rounding explains nothing
    ],
)
def test_where_rounding_alone_moves_the_output_a_pass_is_held_to_the_exact_one(
    off: float, by: float, holds: bool
) -> None:
    span = float(np.ptp(np.maximum(IMAGE["x"], 0)))
    asked: list[None] = []

    def exact() -> NDArray[np.float64]:
        asked.append(None)
        return np.maximum(IMAGE["x"], 0).astype(np.float64) + off * span

    _, reports = run_passes(_plain(), [_Nudge(by * span), _Nudge(by * span)], IMAGE, exact=exact)
    assert [report.modified for report in reports] == [holds, holds]
    assert all(report.rounding is not None for report in reports)
    assert ("from the exact output" in reports[0].reason) is not holds
    assert asked == [None]


def test_without_an_exact_output_or_with_one_of_another_shape_the_change_alone_counts() -> None:
    for exact in (None, lambda: None, lambda: np.zeros((1, 3, 8, 12))):
        _, (report,) = run_passes(_plain(), [_Nudge(1e-3)], IMAGE, exact=exact)
        assert not report.modified
        assert report.reason.endswith("is allowed")


def test_the_exact_output_is_not_asked_for_where_the_change_is_small() -> None:
    def never() -> NDArray[np.float64]:
        raise AssertionError

    _, (report,) = run_passes(_plain(), [_Nudge(1e-7)], IMAGE, exact=never)
    assert report.modified


def test_remove_unused_drops_identities_and_dead_nodes() -> None:
    model = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { a = Identity(x) dead = Exp(x) logits = Relu(a) }")
    model, (report,) = run_passes(model, [RemoveUnused()], IMAGE)
    assert report.modified
    assert report.error == 0.0
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_merge_duplicates_computes_the_same_once() -> None:
    model = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { a = Exp(x) b = Exp(x) logits = Add(a, b) }")
    model, (report,) = run_passes(model, [MergeDuplicates()], IMAGE)
    assert report.modified
    assert [node.op_type for node in model.graph.node] == ["Exp", "Add"]


@pytest.mark.parametrize("step", [RemoveUnused(), MergeDuplicates(), StripNotes()])
def test_tidying_passes_decline_a_tidy_graph(step: Pass) -> None:
    model, (report,) = run_passes(_plain(), [step], IMAGE)
    assert not report.modified
    assert model == _plain()


def test_strip_notes_removes_paths_of_the_export_machine() -> None:
    model = _plain()
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "stack", "somewhere/on/a/disk.py"
    model.graph.node[0].doc_string = "somewhere"
    stripped, (report,) = run_passes(model, [StripNotes()], IMAGE)
    assert report.modified
    assert b"somewhere" not in stripped.SerializeToString()


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
    logits, labels = run_graph(result.model, {"x": feed})
    big = torch.nn.functional.interpolate(
        torch.from_numpy(logits), (70, 17), mode="bilinear", align_corners=align_corners
    )
    expected = big.argmax(1) if channels > 1 else (big[:, 0] > 0.1).long()
    assert labels.dtype == (np.uint8 if channels < 256 else np.int32)
    assert labels.shape == (1, 70, 17)
    assert np.mean(labels != expected.numpy()) <= 1 / labels.size  # one pixel may lie on a boundary


def test_labels_graph_may_drop_the_logits() -> None:
    model = parse("g (float[2,3,4,6] x) => (float[2,3,4,6] logits) { logits = Tanh(x) }")
    feed = np.random.default_rng(1).normal(size=(2, 3, 4, 6)).astype(np.float32)
    both = run_graph(AppendLabels((9, 11), PostprocessSpec())(model).model, {"x": feed})
    alone = run_graph(
        AppendLabels((9, 11), PostprocessSpec(), form="bands", keep_logits=False)(model).model, {"x": feed}
    )
    assert len(alone) == 1
    assert np.array_equal(alone[0], both[1])


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
