"""The projection after single-head attention, done on the values instead of on every query.

With S = softmax(...), whose rows sum to one, values V, and a linear map (W, b) after it:
    (S V) W + b = S (V W + 1 b)
The first stages of hierarchical transformers (MiT: Xie et al., "SegFormer", NeurIPS 2021) attend from all pixels to a
few hundred shrunk ones with a single head, so that V W is a product over the few. With more heads W mixes them, and the
product over keys would be as many times as wide.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor, attribute_float, attribute_int, attribute_ints
from edgeseg.graph.passes._base import GraphPass

__all__ = ["ProjectValues", "matrix_of"]


class ProjectValues(GraphPass):
    """Project the values of single-head attention, not its result.

    The module's text has the identity.

    Requires a softmax over the last axis, constant projection weights, fixed shapes, and between product and projection
    only reshapes and transposes that leave the order of the elements. Declines where it does not cost less.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            if editor.holds(node) and node.op_type in ("Gemm", "MatMul"):
                _project(editor, node)


def _project(editor: GraphEditor, node: ir.Node) -> None:
    found, product = matrix_of(editor, node), _product(editor, node.inputs[0])
    if found is None or product is None:
        return
    weight, bias = found
    scores, values = product.inputs
    shape, before = editor.shape(node.outputs[0]), editor.shape(values)
    whole = editor.shape(product.outputs[0])
    if scores is None or values is None or shape is None or before is None or whole is None:
        return
    if before[-1] != weight.shape[0] or len(before) != len(whole):
        return
    draft = editor.draft(node.outputs[0].name or "projected")
    inner = draft.op("MatMul", [values, draft.constant(weight, "weight")], (*before[:-1], weight.shape[1]))
    if bias is not None:
        inner = draft.op("Add", [inner, draft.constant(bias, "bias")], (*before[:-1], weight.shape[1]))
    out = draft.op("MatMul", [scores, inner], (*whole[:-1], weight.shape[1]))
    out = draft.op("Reshape", [out, draft.constant(np.array(shape, np.int64), "shape")], shape)
    if draft.pays([node.outputs[0]]):
        draft.commit({node.outputs[0]: out}, before=node)
    else:
        draft.discard()
        editor.decline(f"{node.op_type} {node.name}: projecting the attended values first costs more")


def matrix_of(editor: GraphEditor, node: ir.Node) -> tuple[NDArray[np.floating], NDArray[np.floating] | None] | None:
    """Find the matrix, (inputs, outputs), a node multiplies by and the bias it adds; None for other nodes."""
    weight = editor.constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = editor.constant(given)
    if weight is None or weight.ndim != 2 or (given is not None and bias is None):
        return None
    scaled = attribute_float(node, "alpha", 1.0) != 1.0 or attribute_float(node, "beta", 1.0) != 1.0
    if node.op_type == "Gemm" and (scaled or attribute_int(node, "transA", 0)):
        return None
    weight = weight.T if node.op_type == "Gemm" and attribute_int(node, "transB", 0) else weight
    if bias is None:
        return weight, None
    return (weight, np.broadcast_to(bias.reshape(-1), weight.shape[1:])) if bias.size in (1, weight.shape[1]) else None


def _product(editor: GraphEditor, value: ir.Value | None) -> ir.Node | None:
    """Find the product of softmax and values that the value is, with its elements in the same order, or None."""
    width = (editor.shape(value) or (0,))[-1]
    while (node := editor.producer(value, "Reshape", "Transpose")) is not None:
        if node.op_type == "Transpose" and not _keeps_order(editor, node):
            return None
        value = node.inputs[0]
    made = editor.producer(value, "MatMul")
    soft = None if made is None else editor.producer(made.inputs[0], "Softmax")
    rank = None if soft is None else editor.shape(soft.outputs[0])
    if made is None or soft is None or rank is None or (editor.shape(made.outputs[0]) or (0,))[-1] != width:
        return None
    return made if attribute_int(soft, "axis", -1) in (-1, len(rank) - 1) else None


def _keeps_order(editor: GraphEditor, node: ir.Node) -> bool:
    """Tell whether a transpose only moves axes of length 1."""
    shape = editor.shape(node.inputs[0])
    if shape is None:
        return False
    order = attribute_ints(node, "perm", tuple(reversed(range(len(shape)))))
    moved = [axis for axis in order if shape[axis] != 1]
    return all(first < second for first, second in pairwise(moved))
