"""Operators without an int8 kernel, as floats: no numbers rounded for their sake, weights that lie ready.

ONNX Runtime dequantises a float operator's weights in every frame and cannot reorder them for its blocked kernels: a
convolution of CGNet took 11.8 ms instead of 3. A quantiser that only float operators read costs time and accuracy.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.export.precision.ort._graph import DEQUANTISE, QUANTISE, Draft, attributes_of
from edgeseg.export.precision.qdq import tidy

__all__ = ["keep_floats"]


def keep_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Float weights for every operator that has no int8 kernel where it stands, and no quantisers only for such.

    A quantiser stays where it lets the operator before it run in int8.
    """
    draft = Draft(model)
    floats = [node for node in draft.model.graph.node if _is_float(draft, node)]
    for node in floats:
        for index, name in enumerate(node.input):
            if draft.weight(name) is not None:
                node.input[index] = draft.constant(f"{name}_float", _numbers(draft, draft.producers[name]))
    for quantiser in draft.model.graph.node:
        if quantiser.op_type == QUANTISE and quantiser.input[0] in draft.producers:
            _bypass(draft, quantiser)
    return tidy(draft.model)


def _bypass(draft: Draft, quantiser: onnx.NodeProto) -> None:
    found = draft.readers.get(quantiser.output[0], [])
    if draft.runs_in_int8(draft.producers[quantiser.input[0]]) or not all(node.op_type == DEQUANTISE for node in found):
        return
    values = {node.output[0] for node in found}
    users = [user for value in values for user in draft.readers.get(value, [])]
    if draft.outputs & values or not all(_is_float(draft, user) for user in users):
        return
    for user in users:
        user.input[:] = [quantiser.input[0] if name in values else name for name in user.input]


def _is_float(draft: Draft, node: onnx.NodeProto) -> bool:
    return node.op_type not in (DEQUANTISE, QUANTISE) and not draft.runs_in_int8(node)


def _numbers(draft: Draft, dequantiser: onnx.NodeProto) -> NDArray[np.float32]:
    """What a dequantiser of constants gives."""
    numbers, scale, zero = (draft.constants[name].astype(np.float64) for name in dequantiser.input)
    if scale.size > 1:
        shape = [1] * numbers.ndim
        shape[attributes_of(dequantiser).get("axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    made: NDArray[np.float32] = ((numbers - zero) * scale).astype(np.float32)
    return made
