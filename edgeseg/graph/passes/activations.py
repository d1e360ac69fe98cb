"""Activations written the way every engine recognises, so that it runs one kernel instead of five.

PyTorch's exporter writes the exact GELU as x * (0.5 * (1 + erf(x / sqrt 2))). OpenVINO and TensorRT know this form;
ONNX Runtime knows only (x * (1 + erf(x / sqrt 2))) * 0.5 and runs the other node by node. The two differ by one
rounding: a product with a power of two is exact.
"""

from __future__ import annotations

from math import sqrt

import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass

__all__ = ["OrderGelu"]


class OrderGelu(GraphPass):
    """Write GELU as (x * (1 + erf(x / sqrt 2))) * 0.5, the form that every engine recognises.

    Requires x * (0.5 * (1 + erf(x / sqrt 2))), of any shape and with its factors in any position.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            if node.op_type == "Erf" and editor.holds(node):
                _order(editor, node)


def _order(editor: GraphEditor, erf: ir.Node) -> None:
    source = _divided(editor, erf.inputs[0])
    plus = _only_reader(editor, erf.outputs[0], "Add")
    half = None if plus is None else _only_reader(editor, plus.outputs[0], "Mul")
    if source is None or plus is None or half is None:
        return
    if _scalar(editor, plus, erf.outputs[0]) != 1.0 or _scalar(editor, half, plus.outputs[0]) != 0.5:
        return
    last = _only_reader(editor, half.outputs[0], "Mul")
    if last is None or source not in last.inputs:
        return
    constant = half.inputs[1] if half.inputs[0] is plus.outputs[0] else half.inputs[0]
    shape = editor.shape(last.outputs[0]) or ()
    draft = editor.draft("gelu")
    product = draft.op("Mul", [source, plus.outputs[0]], shape, hint="product")
    out = draft.op("Mul", [product, constant], shape, hint="half")
    if not shape:
        product.shape = out.shape = last.outputs[0].shape
    draft.commit({last.outputs[0]: out}, before=last)


def _divided(editor: GraphEditor, value: ir.Value | None) -> ir.Value | None:
    """x, where the value is x / sqrt 2 or x * sqrt 0.5."""
    node = editor.producer(value, "Div", "Mul")
    if node is None:
        return None
    wanted = sqrt(2.0) if node.op_type == "Div" else sqrt(0.5)
    for index in (0, 1) if node.op_type == "Mul" else (0,):
        source = node.inputs[index]
        factor = None if source is None else _scalar(editor, node, source)
        if factor is not None and abs(factor - wanted) < 1e-4:
            return source
    return None


def _only_reader(editor: GraphEditor, value: ir.Value, kind: str) -> ir.Node | None:
    readers = editor.consumers(value)
    return readers[0] if editor.uses(value) == 1 and readers and readers[0].op_type == kind else None


def _scalar(editor: GraphEditor, node: ir.Node, value: ir.Value) -> float | None:
    """Find the single number the node joins with the value; None where it is not one constant number."""
    others = [given for given in node.inputs if given is not value]
    constant = editor.constant(others[0]) if len(others) == 1 else None
    return float(constant.reshape(-1)[0]) if constant is not None and constant.size == 1 else None
