"""Weights too small to matter are zero: processors compute with denormal numbers tens of times as slowly.

Weight decay drives the filters of dead channels towards zero and below 1.2e-38, the smallest normal float32; published
ESPNet and SINet checkpoints hold thousands of such weights. A product or sum with a denormal takes about 150 cycles on
x86, and engines do not tell the processor to take it for zero (ONNX Runtime's option to do so made no difference).
ESPNet's published Cityscapes network takes less than a third of the time without them.

1e-30 is the limit, not 1.2e-38, so that a weight times a small number is no denormal either. What is lost is below
1e-30 of a number of the map, where float32 rounds at 6e-8 of the sum: no output moves.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass

__all__ = ["FlushTiny"]

_LIMIT = 1e-30
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class FlushTiny(GraphPass):
    """Set weights and biases of convolutions and matrix products below 1e-30 to zero.

    Requires float32 initialisers. Constants of other operators stay: a small one may keep a divisor from being zero.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for value in list(editor.graph.initializers.values()):
            kinds = {node.op_type for node in editor.consumers(value)}
            if value.dtype == ir.DataType.FLOAT and kinds and kinds.issubset(_WEIGHTED):
                _flush(editor, value)


def _flush(editor: GraphEditor, value: ir.Value) -> None:
    if value.const_value is None:
        return
    array = value.const_value.numpy()
    tiny = (array != 0) & (np.abs(array) < _LIMIT)
    if tiny.any():
        value.const_value = ir.tensor(np.where(tiny, np.float32(0), array), name=value.name)
        editor.changes += 1
