"""Half where int8 leaves off, and half at the end: TensorRT takes a graph's types as they are.

Scales in fp32 make everything beside int8 run in fp32, without tensor cores. With scales in half (opset 19, which every
parser from TensorRT 10.0 on reads) dequantisers give half.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeseg.graph.editor import GraphEditor, attribute_int
from edgeseg.graph.half import kept_in_fp32, marked, to_half
from edgeseg.graph.passes._base import GraphPass, Pass
from edgeseg.graph.qdq import named
from edgeseg.graph.quantised import ALLOWED_DROP, DEQUANTISE, QUANTISE

__all__ = ["HalfBesideInt8", "HalfLogits"]

_OPSET = 19
"""The first in which quantisers take scales in half."""

_ROUNDING = 2.0**-10
"""Largest relative error of a scale in half: twice what rounding alone makes."""

_SMALL = 2.0**-10
"""A channel whose scale is below this part of the tensor's largest may have any: its weights add next to nothing."""


class HalfBesideInt8(Pass):
    """Let everything between int8 operators run in half, but for the operators that are marked to stay fp32.

    Scales are rounded to half; where that moves one by more than rounding explains, what it scales stays fp32. Requires
    quantisers.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def requires(self, model: onnx.ModelProto) -> str:
        return "" if any(node.op_type == QUANTISE for node in model.graph.node) else "the graph holds no quantiser"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        made = named(model)
        for entry in made.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = max(entry.version, _OPSET)
        reasons = _rounded_scales(made) | kept_in_fp32(made)
        return to_half(marked(made, reasons), reasons)


def _rounded_scales(model: onnx.ModelProto) -> dict[str, str]:
    """Round every scale to half in place; name the operators whose scales half cannot hold, and what reads those."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    quantisers = [node for node in model.graph.node if node.op_type in (QUANTISE, DEQUANTISE)]
    lost = set()
    for name in dict.fromkeys(node.input[1] for node in quantisers):
        scale = numpy_helper.to_array(held[name])
        rounded = _in_half(scale)
        if rounded is None:
            lost.add(name)
        else:
            held[name].CopyFrom(numpy_helper.from_array(rounded, name))
    refused = [node for node in quantisers if node.input[1] in lost]
    given = {output for node in refused if node.op_type == DEQUANTISE for output in node.output}
    readers = [node for node in model.graph.node if given.intersection(node.input)]
    return {node.name: "its scale is too small for half" for node in (*refused, *readers)}


def _in_half(scale: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Round scales to numbers that half holds, none of them 0; None where one that counts moves too far."""
    least = np.finfo(np.float16).smallest_subnormal
    with np.errstate(over="ignore"):
        rounded = np.maximum(scale.astype(np.float16), least).astype(np.float32)
    counts = scale > _SMALL * scale.max(initial=0.0)
    return rounded if (np.abs(rounded - scale) <= _ROUNDING * scale)[counts].all() else None


class HalfLogits(GraphPass):
    """Give the logits in half where they were computed in half.

    A GPU then writes and reads half the memory for them, and no number of its changes; who asks a session for them gets
    float32. ONNX Runtime on the CPU computes in fp32 between casts, so that there they are rounded. Requires a cast to
    float32 at the end.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = 0.005

    def apply(self, editor: GraphEditor) -> None:
        for value in list(editor.graph.outputs):
            cast = editor.producer(value, "Cast")
            source = None if cast is None else cast.inputs[0]
            if cast is None or source is None or source.dtype != ir.DataType.FLOAT16 or source.is_graph_input():
                continue
            if attribute_int(cast, "to", 0) == int(ir.DataType.FLOAT) and not source.is_graph_output():
                kind = source.type
                editor.replace(value, source, before=cast)
                source.type = kind
                editor.remove([cast])
                editor.changes += 1
