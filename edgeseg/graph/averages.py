"""Which nodes average pixels."""

from __future__ import annotations

import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_ints

__all__ = ["averages_whole_map", "is_mean"]


def is_mean(editor: GraphEditor, node: ir.Node) -> bool:
    """Tell whether the node averages pixels by weights that sum to one, and keeps rank 4 and channels."""
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "AveragePool":
        counted = attribute_int(node, "count_include_pad", 0) and any(attribute_ints(node, "pads", ()))
        return not counted and not attribute_int(node, "ceil_mode", 0) and "auto_pad" not in node.attributes
    return averages_whole_map(editor, node)


def averages_whole_map(editor: GraphEditor, node: ir.Node) -> bool:
    """Tell whether the node is a ReduceMean over height and width of a map of rank 4 that keeps the rank."""
    if node.op_type != "ReduceMean" or not attribute_int(node, "keepdims", 1):
        return False
    axes = editor.constant(node.inputs[1] if len(node.inputs) > 1 else None)
    given = attribute_ints(node, "axes", ()) if axes is None else tuple(int(axis) for axis in axes)
    return sorted(axis % 4 for axis in given) == [2, 3] if given else False
