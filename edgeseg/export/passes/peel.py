"""Peel the trailing resize off a graph, so that the exact postprocessing does it at a fraction of the cost.

Networks of the registry return logits at their own stride. A network of the user's own often ends in
``F.interpolate(logits, size=image.shape[-2:], mode="bilinear")``; this pass removes that last node and says which
align_corners the postprocessing must use. It changes what the graph returns, so it is not checked like other
passes: the export compares the peeled graph plus postprocessing with the whole module.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

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
    graph = model.graph
    node = next((n for n in graph.node if "logits" in n.output), None)
    if node is None or node.op_type != "Resize" or len(graph.output) != 1:
        return None
    align = _align_corners(node)
    before = _static_shape(model, node.input[0])
    after = _dims(graph.output[0])
    if align is None or before is None or after is None or before[:2] != after[:2] or tuple(after[2:]) != size:
        return None
    if before[2] > after[2] or before[3] > after[3] or not _is_upsampling_to(graph, node, before, after):
        return None
    return _without(model, node, before), align


def _align_corners(node: onnx.NodeProto) -> bool | None:
    attributes = {a.name: a for a in node.attribute}
    mode = attributes["mode"].s.decode() if "mode" in attributes else "nearest"
    if mode != "linear" or ("antialias" in attributes and attributes["antialias"].i):
        return None
    key = "coordinate_transformation_mode"
    transform = attributes[key].s.decode() if key in attributes else "half_pixel"
    return _ALIGN.get(transform)


def _is_upsampling_to(graph: onnx.GraphProto, node: onnx.NodeProto, before: list[int], after: list[int]) -> bool:
    """Whether scales, where the node gives them, are those of the sizes (a rounded scale samples elsewhere)."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if node.input[2] not in constants:
        return False
    scales = numpy_helper.to_array(constants[node.input[2]])
    return scales.size == 0 or bool(np.allclose(scales, np.array(after) / np.array(before), rtol=1e-6, atol=0.0))


def _without(model: onnx.ModelProto, node: onnx.NodeProto, shape: list[int]) -> onnx.ModelProto:
    peeled = onnx.ModelProto()
    peeled.CopyFrom(model)
    graph = peeled.graph
    source = node.input[0]
    kept = [n for n in graph.node if "logits" not in n.output]
    for other in kept:
        other.input[:] = ["logits" if name == source else name for name in other.input]
        other.output[:] = ["logits" if name == source else name for name in other.output]
    del graph.node[:]
    graph.node.extend(kept)
    for dim, value in zip(graph.output[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.ClearField("dim_param")
        dim.dim_value = value
    return peeled


def _static_shape(model: onnx.ModelProto, name: str) -> list[int] | None:
    inferred = shape_inference.infer_shapes(model)
    for value in (*inferred.graph.value_info, *inferred.graph.input):
        if value.name == name:
            return _dims(value)
    return None


def _dims(value: onnx.ValueInfoProto) -> list[int] | None:
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return dims if len(dims) == 4 and all(dims) else None
