"""The contract of passes: each proves itself by its kind, and one that does not hold is undone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeseg.graph.passes import Pass, RemoveUnused, run_passes
from tests.export.graphs import parse

IMAGE = {"x": np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)}


class _Scale(Pass):
    """Multiplies the result: a wrong rewrite."""

    kind = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].op_type = "Neg"
        return changed


class _Broken(Pass):
    """Leaves a graph no engine takes."""

    kind = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].input[0] = "nothing"
        return changed


class _NotANumber(Pass):
    """Gives a result that no comparison finds larger than anything."""

    kind = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        return parse(
            "g (float[1,3,4,6] x) => (float[1,3,4,6] logits) "
            "{ z = Sub(x, x) r = Relu(x) n = Div(z, z) logits = Add(r, n) }"
        )


class _Failing(Pass):
    """Meets a graph that nobody thought of."""

    kind = "exact"

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


class _Moves(Pass, abstract=True):
    """Moves the result by a constant."""

    def __init__(self, by: float) -> None:
        self._by = by

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        return parse(
            "g (float[1,3,4,6] x) => (float[1,3,4,6] logits) "
            f"<float by = {{{self._by}}}> {{ a = Relu(x) logits = Add(a, by) }}"
        )


class _Nudge(_Moves):
    """Moves the result where it should not."""

    kind = "exact"


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


class _Round(_Moves):
    """Moves the result, as a pass on low precision may."""

    kind = "rounding"
    allowed_drop = 0.01


def _scores(*shares: float) -> Callable[[onnx.ModelProto], float]:
    left = list(shares)
    return lambda model: left.pop(0)


@pytest.mark.parametrize(("after", "holds"), [(1.0, True), (0.991, True), (0.98, False), (float("nan"), False)])
def test_a_rounding_pass_is_held_to_its_score(after: float, holds: bool) -> None:
    model, (report,) = run_passes(_plain(), [_Round(10.0)], IMAGE, score=_scores(1.0, after))
    assert report.kind == "rounding"
    assert report.modified is holds
    assert len(model.graph.node) == (2 if holds else 1)
    assert report.score is not None
    assert report.score[0] == 1.0
    np.testing.assert_equal(report.score[1], after)
    assert ("of the labels are lost, at most 1.00% may be" in report.reason) is not holds


def test_each_rounding_pass_is_scored_against_the_graph_before_it() -> None:
    score = _scores(1.0, 0.992, 0.985, 0.97)
    _, reports = run_passes(_plain(), [_Round(0.1), _Round(0.1), _Round(0.1)], IMAGE, score=score)
    assert [report.score for report in reports] == [(1.0, 0.992), (0.992, 0.985), (0.985, 0.97)]
    assert [report.modified for report in reports] == [True, True, False]


def test_a_score_is_asked_for_only_where_a_rounding_pass_changed_something() -> None:
    _, reports = run_passes(_plain(), [_Nudge(1e-7), RemoveUnused()], IMAGE, score=_scores())
    assert [report.score for report in reports] == [None, None]


def test_an_exact_pass_is_held_to_what_a_rounding_pass_left() -> None:
    model, reports = run_passes(_plain(), [_Round(1.0), _Again()], IMAGE, score=_scores(1.0, 1.0))
    assert [report.modified for report in reports] == [True, True]
    assert [node.op_type for node in model.graph.node] == ["Relu", "Add", "Identity"]


class _Again(Pass):
    """Adds an identity before the output."""

    kind = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[-1].output[0] = "inner"
        changed.graph.node.append(onnx.helper.make_node("Identity", ["inner"], ["logits"]))
        return changed


@pytest.mark.parametrize(("share", "holds"), [(0.04, True), (0.06, False)])
def test_without_a_score_a_rounding_pass_is_held_to_its_outputs(share: float, holds: bool) -> None:
    span = float(np.ptp(np.maximum(IMAGE["x"], 0)))
    _, (report,) = run_passes(_plain(), [_Round(share * span)], IMAGE)
    assert report.modified is holds
    assert report.score is None
    assert report.error == pytest.approx(share, rel=1e-3)
    assert ("in root mean square, at most 0.05 is allowed" in report.reason) is not holds


def test_a_score_that_fails_undoes_the_pass() -> None:
    model, (report,) = run_passes(_plain(), [_Round(0.1)], IMAGE, score=_scores(1.0))
    assert model == _plain()
    assert report.reason == "undone: IndexError: pop from empty list"


@pytest.mark.parametrize("step", [_Broken, _Failing, _NotANumber])
def test_a_rounding_pass_that_breaks_the_graph_is_undone(step: type[Pass]) -> None:
    made = type("_Wrong", (step,), {"kind": "rounding", "allowed_drop": 1.0})
    model, (report,) = run_passes(_plain(), [made()], IMAGE)
    assert model == _plain()
    assert report.kind == "rounding"
    assert report.reason
    assert report.error == np.inf


def test_a_pass_without_a_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="_Silent declares no kind"):
        type("_Silent", (Pass,), {})
