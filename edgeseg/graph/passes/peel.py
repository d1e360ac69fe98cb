"""Peel the trailing resize off a graph, so that the exact postprocessing does it at a fraction of the cost.

Networks of the registry return logits at their stride. A network of the user often ends in
``F.interpolate(logits, size=image.shape[-2:], mode="bilinear")``; `peel_trailing_resize` removes that last node and
says which align_corners the postprocessing must use. It changes what the graph returns, so it is no `Pass`: the export
compares the peeled graph plus postprocessing with the whole module.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_string
from edgeseg.specs import Size

__all__ = ["peel_trailing_resize"]

_ALIGN = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}


def peel_trailing_resize(model: onnx.ModelProto, size: Size) -> tuple[onnx.ModelProto, bool] | None:
    """Remove a last bilinear Resize to the input's size.

    Args:
        model: Graph with one output ``logits`` of fixed shape.
        size: Height x width of the graph's input.

    Returns:
        The graph that ends before the resize, and the align_corners it had; None where the graph does not end in one.
    """
    editor = GraphEditor(model)
    if [value.name for value in editor.graph.outputs] != ["logits"]:
        return None
    node = editor.producer(editor.graph.outputs[0], "Resize")
    source = None if node is None else node.inputs[0]
    if node is None or source is None or source.is_graph_input() or source.is_initializer():
        return None
    align = _align_corners(node)
    before, after = editor.shape(source), editor.shape(node.outputs[0])
    if align is None or before is None or after is None or len(before) != 4 or len(after) != 4:
        return None
    if before[:2] != after[:2] or after[2:] != size or before[2] > after[2] or before[3] > after[3]:
        return None
    return (_without(editor, node, source), align) if _fits_sizes(editor, node, before, after) else None


def _align_corners(node: ir.Node) -> bool | None:
    """Read the align_corners of a bilinear resize; None for any other."""
    if attribute_string(node, "mode", "nearest") != "linear" or attribute_int(node, "antialias", 0):
        return None
    return _ALIGN.get(attribute_string(node, "coordinate_transformation_mode", "half_pixel"))


def _fits_sizes(editor: GraphEditor, node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Tell whether scales, where the node gives them, are those of the sizes (a rounded scale samples elsewhere)."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None:
        return True
    scales = editor.constant(given)
    if scales is None:
        return False
    return scales.size == 0 or bool(np.allclose(scales, np.array(after) / np.array(before), rtol=1e-6, atol=0.0))


def _without(editor: GraphEditor, node: ir.Node, source: ir.Value) -> onnx.ModelProto:
    output = node.outputs[0]
    editor.graph.outputs[0] = source
    editor.graph.remove([node], safe=True)
    output.name, source.name, source.type = editor.fresh_name("peeled"), "logits", output.type
    return editor.to_proto()
