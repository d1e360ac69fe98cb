"""Convolutions that end in floats as products of integers."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import helper

from edgeseg.export.precision.ort._graph import QuantisedGraph, attributes_of, integers, is_padded

__all__ = ["classifiers_as_products"]


def classifiers_as_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """1x1 convolutions of quantised maps to fewer float channels, as MatMulInteger of channels-last maps.

    The sums are those of the convolution in exact arithmetic; they are scaled and shifted as it would.
    """
    graph = QuantisedGraph(model)
    return graph.replacing("Conv", partial(_product, graph))


def _product(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    if graph.is_quantised(node) or not _is_pointwise(attributes_of(node)):
        return None
    source, weight = graph.dequantiser(node.input[0]), graph.weight(node.input[1])
    if source is None or weight is None or weight.numbers.ndim != 4 or weight.numbers.dtype != np.int8:
        return None
    scale = graph.constants[source.input[1]]
    given = node.input[2] if len(node.input) > 2 else ""
    outputs, inputs = weight.numbers.shape[:2]
    if 2 * outputs > inputs or scale.size != 1 or (given and given not in graph.constants):
        return None
    stem = node.output[0]
    own = scale.astype(np.float64) * graph.constants[weight.scale].astype(np.float64)
    matrix = graph.constant(f"{stem}_matrix", weight.numbers[:, :, 0, 0].T)
    factor = graph.constant(f"{stem}_factor", own.reshape(-1).astype(np.float32))
    last, sums, floats, scaled, shifted = (f"{stem}_{part}" for part in ("last", "sums", "floats", "scaled", "shifted"))
    made = [
        helper.make_node("Transpose", [source.input[0]], [last], name=last, perm=[0, 2, 3, 1]),
        helper.make_node("MatMulInteger", [last, matrix, source.input[2]], [sums], name=sums),
        helper.make_node("Cast", [sums], [floats], name=floats, to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [floats, factor], [scaled], name=scaled),
    ]
    if given:
        made.append(helper.make_node("Add", [scaled, given], [shifted], name=shifted))
    end = made[-1].output[0]
    return [*made, helper.make_node("Transpose", [end], [stem], name=node.name, perm=[0, 3, 1, 2])]


def _is_pointwise(attributes: dict[str, object]) -> bool:
    steps = {*integers(attributes.get("strides", ())), *integers(attributes.get("kernel_shape", ()))}
    whole = attributes.get("group", 1) == 1 and not is_padded(attributes)
    return whole and steps <= {1} and "kernel_shape" in attributes
