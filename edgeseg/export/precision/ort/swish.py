"""Hard swish in int8, which has no kernel for it: the product of two convolutions.

x clip(x / 6 + 1/2, 0, 1) is the convolution that gives x times the same with a sixth of its scales and a half added,
written to numbers from 0 to 255 that stand for 0 to 1: a quantiser's ends cut off for nothing, and products have an
int8 kernel. Below -3 the second is 0, so that the first needs no numbers there: its range follows from the output's.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from onnx import helper

from edgeseg.export.precision.ort._graph import QUANTISE, QuantisedGraph
from edgeseg.export.precision.ort._sources import Grid, source_of

__all__ = ["multiply_swishes"]

_TOP, _KNEE = 255, 3.0


def multiply_swishes(model: onnx.ModelProto) -> onnx.ModelProto:
    """HardSwish between convolutions (or sums, batch norms) of quantised maps and a quantiser, as products in int8.

    Requires that one quantiser reads it, and that nothing else reads what stands before it.
    """
    graph = QuantisedGraph(model)
    return graph.replacing("HardSwish", partial(_product, graph))


def _product(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    found = graph.readers.get(node.output[0], [])
    if len(found) != 1 or found[0].op_type != QUANTISE or node.output[0] in graph.outputs:
        return None
    scale, zero = (graph.constants[name] for name in found[0].input[1:3])
    source = source_of(graph, node.input[0])
    if scale.size != 1 or source is None:
        return None
    largest = max(scale.item() * (_TOP - zero.item()), _KNEE)
    step = (largest + _KNEE) / _TOP
    ones = np.ones(source.channels)
    straight, first = source.times(graph, "straight", ones, Grid(step, round(_KNEE / step)))
    gate, second = source.times(graph, "gate", ones / 6, Grid(1 / _TOP, 0), shift=0.5)
    product = helper.make_node("Mul", [first, second], list(node.output), name=node.name)
    return [*source.before, *straight, *gate, product]
