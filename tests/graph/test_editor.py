"""The tools the passes share: reading, drafts, names, outputs, costs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.errors import UnknownNameError
from edgeseg.export.passes import default_passes, pass_names
from edgeseg.graph.cost import Cost, graph_cost
from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes import Pass, run_passes
from tests.graph.passes.tools import build, feeds, kinds, normal


def _model() -> onnx.ModelProto:
    return build(
        "g (float[1,4,8,8] x) => (float[1,6,8,8] y) { a = Relu(x) b = Exp(a) c = Add(a, b) y = Conv(c, w) }",
        w=normal(6, 4, 1, 1),
    )


def _value(editor: GraphEditor, name: str) -> object:
    return next(out for node in editor.nodes() for out in node.outputs if out.name == name)


def test_counts_follow_the_formulas() -> None:
    cost = graph_cost(_model())
    assert cost.nodes == 4
    assert cost.macs == 6 * 4 * 64
    words = 4 * 64
    assert cost.bytes == 4 * (2 * words + 2 * words + 3 * words + (words + 24 + 6 * 64))


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        ("y = Conv<group=4, pads=[1,1,1,1]>(x, wd)", 4 * 9 * 64),
        ("y = ConvTranspose<strides=[2,2]>(x, wt)", 64 * 4 * 3 * 4),
        ("y = MatMul(x, wm)", 4 * 64 * 5),
        ("y = Relu(x)", 0),
    ],
)
def test_multiply_accumulates(body: str, macs: int) -> None:
    shape = {"ConvT": "1,3,16,16", "MatMu": "1,4,8,5"}.get(body[4:9], "1,4,8,8")
    model = build(
        f"g (float[1,4,8,8] x) => (float[{shape}] y) {{ {body} }}",
        wd=normal(4, 1, 3, 3),
        wt=normal(4, 3, 2, 2),
        wm=normal(8, 5),
    )
    assert graph_cost(model).macs == macs


def test_costs_add_and_compare() -> None:
    one, two = Cost(1, 2, 3, 0.5), Cost(1, 1, 1, 0.6)
    assert one + two == Cost(2, 3, 4, 1.1)
    assert one.cheaper_than(two)
    assert not one.cheaper_than(two, margin=two.seconds)


def test_what_falls_away_is_what_nobody_else_reads() -> None:
    editor = GraphEditor(_model())
    c, a = _value(editor, "c"), _value(editor, "a")
    assert {n.op_type for n in editor.dead_without([c])} == {"Add", "Exp", "Relu"}  # type: ignore[list-item]
    assert {n.op_type for n in editor.dead_without([c], keep=[a])} == {"Add", "Exp"}  # type: ignore[list-item]
    assert editor.dead_without([a])[0].op_type == "Relu"  # type: ignore[list-item]


def test_a_draft_thrown_away_leaves_the_graph_as_it_was() -> None:
    editor = GraphEditor(_model())
    before = editor.to_proto().SerializeToString()
    draft = editor.draft("d")
    draft.op("Neg", [editor.graph.inputs[0], draft.constant(normal(3))], (1, 4, 8, 8))
    draft.discard()
    assert editor.to_proto().SerializeToString() == before
    assert editor.uses(editor.graph.inputs[0]) == 1


@pytest.mark.parametrize(("channels", "pays"), [(256, False), (253, False), (230, True)])
def test_a_draft_pays_where_it_saves_what_the_estimate_can_tell(channels: int, pays: bool) -> None:
    model = build(
        f"g (float[1,256,16,16] x, float[1,{channels},16,16] z) => (float[1,256,16,16] y) {{ y = Conv(x, w) }}",
        w=normal(256, 256, 1, 1),
    )
    editor = GraphEditor(model)
    draft = editor.draft("d")
    weight = draft.constant(normal(256, channels, 1, 1))
    draft.op("Conv", [editor.graph.inputs[1], weight], (1, 256, 16, 16))
    assert draft.cost.cheaper_than(draft.saved([editor.graph.outputs[0]])) == (channels < 256)
    assert draft.pays([editor.graph.outputs[0]]) == pays


def test_names_stay_unique_and_small_constants_are_shared() -> None:
    model = build("g (float[1,4,8,8] x) => (float[1,4,8,8] y) { neg = Relu(x) y = Add(neg, k) }", k=normal(1))
    editor = GraphEditor(model)
    y = editor.graph.outputs[0]
    draft = editor.draft("neg")
    out = draft.op("Mul", [editor.graph.inputs[0], draft.constant(normal(1), "k")], (1, 4, 8, 8), hint="neg")
    draft.commit({y: out})
    rewritten = editor.to_proto()
    assert [t.name for t in rewritten.graph.initializer] == ["k"]
    assert rewritten.graph.output[0].name == "y"
    assert kinds(rewritten) == ["Mul"]
    onnx.checker.check_model(rewritten, full_check=True)


def test_an_initialiser_that_is_an_input_is_no_constant() -> None:
    model = _model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [6, 4, 1, 1]))
    editor = GraphEditor(model)
    conv = next(node for node in editor.nodes() if node.op_type == "Conv")
    assert editor.constant(conv.inputs[1]) is None


def test_a_graph_that_holds_the_size_of_large_weights_still_infers_shapes() -> None:
    model = build("g (float[1,64,8,8] x) => (float[1,64,8,8] y) { a = Conv(x, w) y = Relu(a) }", w=normal(64, 64, 1, 1))
    editor = GraphEditor(model)
    assert editor.shape(editor.nodes()[0].outputs[0]) == (1, 64, 8, 8)


class _Once(Pass):
    """Changes Relu to a wrong Neg in the first round only where it is asked again."""

    kind = "exact"
    calls = 0

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        self.calls += 1
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].op_type = "Neg"
        return changed


def test_a_pass_that_was_undone_is_not_tried_again() -> None:
    step, model = _Once(), _model()
    _, reports = run_passes(model, [step, *default_passes()], feeds(model), rounds=3)
    assert step.calls == 1
    assert reports[0].reason.startswith("reverted")


def test_later_rounds_report_only_what_changed() -> None:
    model = _model()
    _, reports = run_passes(model, default_passes(), feeds(model), rounds=3)
    assert len(reports) == len(default_passes())


def test_passes_are_chosen_by_name() -> None:
    names = [step.name for step in default_passes(skip=["PushLinear"])]
    assert names == [step.name for step in default_passes() if step.name != "PushLinear"]
    assert {*names, "PushLinear"} <= {*pass_names()}
    tidy = [step.name for step in default_passes(rewrites=False)]
    assert tidy == ["RemoveUnused", "MergeDuplicates", "StripNotes"]
    with pytest.raises(UnknownNameError, match="unknown pass 'PushLiner': did you mean 'PushLinear'"):
        default_passes(skip=["PushLiner"])


def test_reports_hold_counts_where_something_changed() -> None:
    body = 'a = Relu(x) b = Resize<mode="linear">(a, , , to) y = Conv(b, w)'
    model = build(
        f"g (float[1,8,8,8] x) => (float[1,2,32,32] y) {{ {body} }}",
        to=np.array([1, 8, 32, 32], np.int64),
        w=normal(2, 8, 1, 1),
    )
    _, reports = run_passes(model, default_passes(), feeds(model))
    moved = next(report for report in reports if report.name == "PushLinear")
    assert moved.macs == (2 * 8 * 32 * 32, 2 * 8 * 8 * 8)
    assert moved.bytes is not None
    assert moved.bytes[1] < moved.bytes[0]
    assert all(report.macs is None for report in reports if not report.modified)
