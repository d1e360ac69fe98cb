"""Convolutions that end in floats as products of integers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeseg.export.precision.ort._graph import (
    Constants,
    Grids,
    attributes_of,
    constants_of,
    integers,
    is_padded,
    is_quantised,
    readers_of,
    with_nodes,
)
from edgeseg.export.precision.qdq import copied

__all__ = ["classifiers_as_products"]


def classifiers_as_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """1x1 convolutions of quantised maps to fewer float channels, as MatMulInteger of channels-last maps.

    The sums are those of the convolution in exact arithmetic; they are scaled and shifted as it would.
    """
    copy = copied(model)
    constants, grids, readers = constants_of(copy), Grids(copy), readers_of(copy)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        made = None
        if node.op_type == "Conv" and not is_quantised(node, readers) and _is_pointwise(attributes_of(node)):
            made = _product(copy, node, constants, grids)
        nodes += made or [node]
    return with_nodes(copy, nodes)


def _product(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: Constants, grids: Grids
) -> list[onnx.NodeProto] | None:
    source, read = grids.quantised(node.input[0]), grids.quantised(node.input[1])
    if source is None or read is None or not grids.is_dequantised(node.input[0]) or read.input[0] not in constants:
        return None
    weight, own = constants[read.input[0]], constants[read.input[1]]
    given = node.input[2] if len(node.input) > 2 else ""
    bias = constants.get(given)
    scale = constants[source.input[1]]
    if (
        weight.ndim != 4
        or weight.dtype != np.int8
        or 2 * len(weight) > weight.shape[1]
        or scale.size != 1
        or (given and bias is None)
    ):
        return None
    stem = node.output[0]
    arrays: Constants = {
        f"{stem}_matrix": np.ascontiguousarray(weight[:, :, 0, 0].T),
        f"{stem}_factor": (scale.astype(np.float64) * own.astype(np.float64)).reshape(-1).astype(np.float32),
    }
    if bias is not None:
        arrays[f"{stem}_shift"] = bias
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    last, sums, floats, scaled, shifted = (f"{stem}_{part}" for part in ("last", "sums", "floats", "scaled", "shifted"))
    made = [
        helper.make_node("Transpose", [source.input[0]], [last], name=last, perm=[0, 2, 3, 1]),
        helper.make_node("MatMulInteger", [last, f"{stem}_matrix", source.input[2]], [sums], name=sums),
        helper.make_node("Cast", [sums], [floats], name=floats, to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [floats, f"{stem}_factor"], [scaled], name=scaled),
    ]
    if bias is not None:
        made.append(helper.make_node("Add", [scaled, f"{stem}_shift"], [shifted], name=shifted))
    end = made[-1].output[0]
    return [*made, helper.make_node("Transpose", [end], [stem], name=node.name, perm=[0, 3, 1, 2])]


def _is_pointwise(attributes: dict[str, object]) -> bool:
    steps = {*integers(attributes.get("strides", ())), *integers(attributes.get("kernel_shape", ()))}
    whole = attributes.get("group", 1) == 1 and not is_padded(attributes)
    return whole and steps <= {1} and "kernel_shape" in attributes
