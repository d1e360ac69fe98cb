"""Weights too small to matter are zero: processors compute with denormal numbers tens of times as slowly.

Weight decay drives the filters of dead channels towards zero and below 1.2e-38, the smallest normal float32; published
ESPNet and SINet checkpoints hold thousands of such weights. A product or sum with a denormal takes about 150 cycles on
x86, and engines do not tell the processor to take it for zero (ONNX Runtime's option to do so made no difference).
ESPNet's published Cityscapes network at 256x512 took 96.9 ms in ONNX Runtime and takes 29.8 without them.

1e-30 is the limit, not 1.2e-38, so that a weight times a small number is no denormal either. What is lost is below
1e-30 of a number of the map, where float32 rounds at 6e-8 of the sum: no output moves.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgeseg.export.passes._base import Pass

__all__ = ["FlushTiny"]

_LIMIT = 1e-30
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class FlushTiny(Pass):
    """Set weights and biases of convolutions and matrix products below 1e-30 to zero.

    Requires float32 initialisers. Constants of other operators stay: a small one may keep a divisor from being zero.
    """

    kind = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        weights = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input}
        others = {name for node in model.graph.node if node.op_type not in _WEIGHTED for name in node.input}
        flushed: dict[int, onnx.TensorProto] = {}
        for index, tensor in enumerate(model.graph.initializer):
            if tensor.data_type != onnx.TensorProto.FLOAT or tensor.name not in weights - others:
                continue
            array = numpy_helper.to_array(tensor)
            tiny = (array != 0) & (np.abs(array) < _LIMIT)
            if tiny.any():
                flushed[index] = numpy_helper.from_array(np.where(tiny, np.float32(0), array), tensor.name)
        if not flushed:
            return None
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for index, tensor in flushed.items():
            copy.graph.initializer[index].CopyFrom(tensor)
        return copy
