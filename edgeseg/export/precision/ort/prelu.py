"""PReLU in int8, which has no kernel for it: the sum of what convolutions give on either side of 0.

PReLU(x) = max(x, 0) + min(s x, 0) for slopes s of 0 and more. A quantiser cuts off at its ends, so the first half is
the convolution itself, written to numbers from 0 up, and the second the same convolution with its scales times the
slopes, written to numbers from 0 down (zero point 255). Channels of negative slopes, half of those of published
networks, have max(s x, 0) in place of the second: a third convolution, from 0 up, added to the first. All but one of
them are 0 everywhere, and sums have an int8 kernel: the convolution runs in int8 too, which it does not before a float
operator. The parts hold steps of the output, so that the sum rounds nothing again: the numbers are those of the PReLU.
(Half steps were tried: every second sum lies between two steps. ESPNet's error on CamVid was 0.0153 of the range then,
and is 0.0108, that of the quantised graph itself.)
"""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgeseg.export.precision.ort._graph import QUANTISE, QuantisedGraph, attributes_of, quantisers
from edgeseg.export.precision.ort._sources import Grid, Source, source_of

__all__ = ["split_prelus"]

_MIDDLE, _TOP = 128, 255


def split_prelus(model: onnx.ModelProto) -> onnx.ModelProto:
    """PReLUs between convolutions (or sums, batch norms) of quantised maps and a quantiser, as sums in int8.

    Several maps joined before the PReLU get one each. Requires constant slopes, one quantiser of zero point 128 that
    reads the PReLU, and that nothing else reads what stands before it.
    """
    graph = QuantisedGraph(model)
    return graph.replacing("PRelu", partial(_split, graph))


def _split(graph: QuantisedGraph, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    found = graph.readers.get(node.output[0], [])
    if node.input[1] not in graph.constants or not graph.is_quantised(node) or len(found) != 1:
        return None
    slopes = graph.constants[node.input[1]].astype(np.float64).reshape(-1)
    scale, zero = (graph.constants[name].astype(np.float64) for name in found[0].input[1:3])
    sources = _sources(graph, node.input[0])
    if scale.size != 1 or zero.item() != _MIDDLE or found[0].op_type != QUANTISE or sources is None:
        return None
    channels = sum(each.channels for each in sources)
    if slopes.size not in (1, channels):
        return None
    every = np.broadcast_to(slopes, (channels,))
    step = scale.item()
    nodes: list[onnx.NodeProto] = []
    parts: list[str] = []
    start = 0
    for source in sources:
        own = every[start : start + source.channels]
        start += source.channels
        if len(sources) == 1:
            return _halves(graph, source, own, step, node.output[0])
        nodes += _halves(graph, source, own, step, f"{source.name}_prelu")
        parts.append(f"{source.name}_part")
        nodes += quantisers(f"{source.name}_prelu", parts[-1], (found[0].input[1], found[0].input[2]))
    if parts:
        nodes.append(helper.make_node("Concat", parts, list(node.output), name=node.name, axis=1))
    return nodes


def _halves(
    graph: QuantisedGraph, source: Source, slopes: NDArray[np.float64], step: float, output: str
) -> list[onnx.NodeProto]:
    """The convolutions, quantised to either side of 0, and their sum."""
    up, down = Grid(step, 0), Grid(step, _TOP)
    above, first = source.times(graph, "above", np.ones_like(slopes), up)
    nodes = [*source.before, *above]
    if (slopes < 0).any():
        mirrored, name = source.times(graph, "mirrored", np.minimum(slopes, 0), up)
        both = f"{source.name}_both"
        nodes += [*mirrored, helper.make_node("Add", [first, name], [both], name=f"{both}_sum")]
        first = f"{both}_part"
        nodes += quantisers(both, first, up.names(graph))
    below, second = source.times(graph, "below", np.maximum(slopes, 0), down)
    return [*nodes, *below, helper.make_node("Add", [first, second], [output], name=f"{output}_sum")]


def _sources(graph: QuantisedGraph, name: str) -> list[Source] | None:
    """What a value is computed from, one convolution per part; None where it is something else."""
    whole = source_of(graph, name)
    if whole is not None:
        return [whole]
    node = graph.producer(name, "Concat")
    if node is None or len(graph.readers[name]) != 1 or attributes_of(node).get("axis") != 1:
        return None
    found = [source_of(graph, part) for part in node.input]
    parts = [each for each in found if each is not None]
    return parts if len(parts) == len(found) else None
