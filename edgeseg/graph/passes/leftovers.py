"""A ReLU of what is not negative: blocks that end in one and begin with one leave it behind.

Exact bit for bit, and it always pays, since a pass over the map falls away. Other leftovers are gone before: onnxsim
and `RemoveUnused` drop identities, dropout, unused outputs, chains of Transpose or Reshape and padding before
convolutions; `SimplifyResizes` drops resizes to the same size and Expand before an operator that broadcasts. Passes for
no-ops on fixed shapes (Reshape, Slice, Pad, Cast, Concat of one, Split and Concat) found nothing in 53 networks, and
are not here.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor, attribute_string
from edgeseg.graph.passes._base import GraphPass

__all__ = ["DropRepeatedRelu"]


class DropRepeatedRelu(GraphPass):
    """Remove a ReLU of what is never negative, and a ReLU before a Clip from 0 upwards.

    relu(y) = y where y >= 0: results of ReLU, sigmoids, softmax, and of pooling, linear or nearest resizing, means,
    concatenation, sums and products of such. clip(relu(x), 0, c) = clip(x, 0, c), where nobody else reads the ReLU.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            if not editor.holds(node) or node.inputs[:1] in ((), (None,)):
                continue
            source = node.inputs[0]
            if node.op_type == "Relu" and source is not None and _is_positive(editor, source, 0):
                _drop(editor, node, source)
            elif node.op_type == "Clip" and _floor(editor, node) == 0.0:
                _skip_relu(editor, node)


def _drop(editor: GraphEditor, node: ir.Node, source: ir.Value) -> None:
    out = node.outputs[0]
    editor.replace(out, source, before=node)
    editor.remove_with(out)
    editor.changes += 1


_POSITIVE = {"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus"}
_KEEPS_SIGN = {
    "AveragePool", "Concat", "Expand", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool",
    "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
_COMBINES = {"Add", "Max", "Min", "Mul", "Sum"}
_MEANS = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
_DEPTH = 12


def _is_positive(editor: GraphEditor, value: ir.Value | None, depth: int) -> bool:
    constant = editor.constant(value)
    if constant is not None:
        return bool((constant >= 0).all())
    node = editor.producer(value)
    if node is None or depth > _DEPTH:
        return False
    kind = node.op_type
    if kind == "Clip":
        floor = _floor(editor, node)
        return floor is not None and floor >= 0.0
    if kind in _POSITIVE:
        return True
    if kind in _MEANS or (kind == "Resize" and _interpolates(node)):
        return _is_positive(editor, node.inputs[0], depth + 1)
    if kind in _KEEPS_SIGN:
        data = node.inputs if kind == "Concat" else node.inputs[:1]
        return all(_is_positive(editor, each, depth + 1) for each in data)
    return kind in _COMBINES and all(_is_positive(editor, each, depth + 1) for each in node.inputs)


def _interpolates(node: ir.Node) -> bool:
    """Tell whether every sample is a mean of the map's with weights from 0 to 1."""
    crops = attribute_string(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return attribute_string(node, "mode", "nearest") in ("linear", "nearest") and not crops


def _floor(editor: GraphEditor, clip: ir.Node) -> float | None:
    found = editor.constant(clip.inputs[1]) if len(clip.inputs) > 1 else None
    return float(found) if found is not None and found.ndim == 0 else None


def _skip_relu(editor: GraphEditor, clip: ir.Node) -> None:
    relu = editor.producer(clip.inputs[0], "Relu")
    if relu is not None and editor.uses(relu.outputs[0]) == 1:
        editor.set_input(clip, 0, relu.inputs[0])
        editor.changes += 1
