"""Pyramid pooling that reads the large map once: a coarse average is the average of finer ones.

Windows of a x b and of (p a) x (q b) that both tile the map nest: mean over p a q b places = mean over p q means over
a b places each. So global averages and coarse bins of pyramid pooling (PSPNet, Zhao et al., CVPR 2017; PP-LiteSeg,
Peng et al., 2022) come from the finest bins, which hold a small part of the map. Exact in real arithmetic.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeseg.graph.averages import averages_whole_map
from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_ints
from edgeseg.graph.passes._base import GraphPass

__all__ = ["NestPools"]

Window = tuple[int, int]


class NestPools(GraphPass):
    """Compute averages over large windows from averages over smaller ones of the same map.

    Requires fixed shapes, and windows that tile the map without padding, overlap or rest; declines pyramids whose bins
    overlap (products with averaging matrices) or whose windows are no multiples (5, 9 and 17 with padding in DAPPM).
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            window = _window(editor, node) if editor.holds(node) else None
            if window is not None:
                _nest(editor, node, window)


def _nest(editor: GraphEditor, node: ir.Node, window: Window) -> None:
    finer = _finer(editor, node, window)
    out, shape = node.outputs[0], editor.shape(node.outputs[0])
    if finer is None or shape is None:
        return
    base, inner = finer
    ratio = [window[0] // inner[0], window[1] // inner[1]]
    draft = editor.draft(out.name or "pool")
    if shape[2:] == (1, 1) and node.op_type != "AveragePool":
        new = draft.op(node.op_type, [base, *node.inputs[1:]], shape, copied=node.attributes)
    else:
        new = draft.op("AveragePool", [base], shape, kernel_shape=ratio, strides=ratio)
    if draft.pays([out]):
        draft.commit({out: new}, before=node)
    else:
        draft.discard()
        editor.decline("an average of averages would cost more than the average itself")


def _finer(editor: GraphEditor, node: ir.Node, window: Window) -> tuple[ir.Value, Window] | None:
    """Find the coarsest other average of the same map from which this one can be computed."""
    best: tuple[ir.Value, Window] | None = None
    source = node.inputs[0]
    for other in editor.consumers(source) if source is not None else ():
        inner = _window(editor, other) if other is not node and other.inputs[0] is source else None
        if inner is None or inner == window or window[0] % inner[0] or window[1] % inner[1]:
            continue
        if best is None or inner[0] * inner[1] > best[1][0] * best[1][1]:
            best = (other.outputs[0], inner)
    return best


def _window(editor: GraphEditor, node: ir.Node) -> Window | None:
    """Find height x width of the windows, where the node averages over windows that tile its map."""
    shape = editor.shape(node.inputs[0]) if node.inputs else None
    if shape is None or len(shape) != 4 or editor.shape(node.outputs[0]) is None:
        return None
    if node.op_type == "GlobalAveragePool":
        return shape[2], shape[3]
    if node.op_type == "ReduceMean":
        return (shape[2], shape[3]) if averages_whole_map(editor, node) else None
    if node.op_type != "AveragePool":
        return None
    kernel = attribute_ints(node, "kernel_shape", ())
    plain = attribute_ints(node, "strides", (1, 1)) == kernel and not any(attribute_ints(node, "pads", (0,)))
    plain &= all(d == 1 for d in attribute_ints(node, "dilations", (1,)))
    plain &= not attribute_int(node, "ceil_mode", 0) and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    if not plain or shape[2] % kernel[0] or shape[3] % kernel[1]:
        return None
    return kernel[0], kernel[1]
