"""PReLU written as operators that ONNX Runtime runs faster than its PRelu kernel, which breaks its blocked layout.

PReLU (He et al., ICCV 2015, arXiv 1502.01852) with slope s per channel is, for every s up to 1,

    s x + relu((1 - s) x),

two depthwise 1x1 convolutions, the first of which takes the sum and the second the ReLU along in one kernel; for any s
it is s x + (1 - s) relu(x). A batch normalisation or a depthwise convolution right before it folds into both. ONNX
Runtime keeps convolutions in its blocked layout (NCHWc) where their channels fill its blocks; a PReLU between two of
them costs two reorderings and a slow loop besides.

Other channels it keeps in plain layout. There, for slopes up to 1, PReLU is the larger of x and s x, whose operators
are vectorised, which its kernel is not. Every number is the same. Four operators for any slope,
relu(x) + s (x - relu(x)), were tried: faster alone, but slower within ESPNet and CGNet.

Only for graphs that ONNX Runtime runs: OpenVINO and TensorRT have a fused PReLU, which this would take from them.
Exact in real arithmetic; weights are computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.channel_relations import channels
from edgeseg.graph.editor import Draft, GraphEditor, attribute_float, attribute_int
from edgeseg.graph.passes._base import GraphPass

__all__ = ["PReluAsConvolutions", "PReluAsMaximum"]

_BLOCK = 16
"""Channels of ONNX Runtime's blocked layout with AVX-512; with AVX2 it is 8, which this contains."""

_TAPS = 9
"""Largest depthwise kernel that is computed twice rather than once and followed by 1x1 convolutions."""


@dataclass(frozen=True)
class _Source:
    """A depthwise convolution whose result the PReLU reads.

    Attributes:
        value: What it reads.
        weight: float64 (C, 1, kh, kw).
        bias: float64 (C,).
        attributes: Of the Conv.
    """

    value: ir.Value
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    attributes: dict[str, ir.Attr]


class PReluAsConvolutions(GraphPass):
    """Write PReLU as depthwise convolutions where ONNX Runtime keeps maps in its blocked layout.

    Requires constant float32 slopes, one for all or one per channel, on maps of a multiple of 16 channels and of more
    than one pixel.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node, slope in _prelus(editor):
            value, out = node.inputs[0], node.outputs[0]
            count = channels(value)
            if value is None or not count or count % _BLOCK:
                continue
            slopes = np.broadcast_to(slope.astype(np.float64).ravel(), (count,))
            draft = editor.draft(out.name or "prelu")
            branches = _convex if (slopes <= 1.0).all() else _any_slope
            draft.commit({out: branches(draft, _source(editor, value, count), slopes, out)}, before=node)


class PReluAsMaximum(GraphPass):
    """Write PReLU as the larger of x and s x.

    Requires constant float32 slopes up to 1, one for all or one per channel, on maps of more than one pixel. Comes
    after `PReluAsConvolutions`; in a quantised graph, where no layout is blocked, without it.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node, slope in _prelus(editor):
            value, out = node.inputs[0], node.outputs[0]
            if not (slope <= 1.0).all():
                editor.decline("a PRelu has slopes above 1")
                continue
            draft = editor.draft(out.name or "prelu")
            scaled = draft.op("Mul", [value, draft.constant(slope.reshape(-1, 1, 1), "slope")], (), hint="scaled")
            draft.commit({out: _like(draft.op("Max", [value, _like(scaled, out)], ()), out)}, before=node)


def _prelus(editor: GraphEditor) -> Iterator[tuple[ir.Node, NDArray[np.float32]]]:
    """Yield every PReLU that can be written otherwise, with its slopes."""
    for node in editor.nodes():
        if node.op_type != "PRelu" or not editor.holds(node):
            continue
        value, slope = node.inputs[0], editor.constant(node.inputs[1])
        count = channels(value)
        if value is None or slope is None or count is None or len(value.shape or ()) != 4 or slope.dtype != np.float32:
            editor.decline("a PRelu has slopes that are not constant, or maps of unknown channels")
        elif not (slope.size == 1 or slope.shape[-3:] == (count, 1, 1)):
            editor.decline("a PRelu has neither one slope nor one per channel")
        elif (editor.shape(value) or ())[2:] != (1, 1):
            yield node, slope


def _convex(draft: Draft, source: _Source, slopes: NDArray[np.float64], out: ir.Value) -> ir.Value:
    rest = _like(draft.op("Relu", [_scaled(draft, source, 1.0 - slopes, out, "rest")], (), hint="relu"), out)
    return _like(draft.op("Add", [_scaled(draft, source, slopes, out, "slope"), rest], ()), out)


def _any_slope(draft: Draft, source: _Source, slopes: NDArray[np.float64], out: ir.Value) -> ir.Value:
    whole = _scaled(draft, source, np.ones_like(slopes), out, "whole")
    relu = _like(draft.op("Relu", [whole], (), hint="relu"), out)
    rest = _scaled(draft, _plain(relu, len(slopes)), 1.0 - slopes, out, "rest")
    return _like(draft.op("Add", [_scaled(draft, source, slopes, out, "slope"), rest], ()), out)


def _scaled(draft: Draft, source: _Source, factor: NDArray[np.float64], out: ir.Value, hint: str) -> ir.Value:
    if (factor == 1.0).all() and source.weight.shape[2:] == (1, 1) and (source.weight == 1.0).all():
        return source.value
    weight = (source.weight * factor[:, None, None, None]).astype(np.float32)
    bias = (source.bias * factor).astype(np.float32)
    inputs = [source.value, draft.constant(weight, f"{hint}_weight")]
    if bias.any():
        inputs.append(draft.constant(bias, f"{hint}_bias"))
    return _like(draft.op("Conv", inputs, (), hint=hint, copied=source.attributes), out)


def _like(value: ir.Value, out: ir.Value) -> ir.Value:
    value.shape, value.type = out.shape, out.type
    return value


def _plain(value: ir.Value, count: int) -> _Source:
    return _Source(value, np.ones((count, 1, 1, 1)), np.zeros(count), {"group": ir.AttrInt64("group", count)})


def _source(editor: GraphEditor, value: ir.Value, count: int) -> _Source:
    """Find what gives the value, where that folds: a depthwise convolution or a batch norm nobody else reads."""
    node = editor.producer(value, "Conv", "BatchNormalization")
    parameters = None if node is None else editor.constants(node.inputs[1:])
    if node is None or parameters is None or node.inputs[0] is None or editor.uses(value) != 1:
        return _plain(value, count)
    if node.op_type == "BatchNormalization":
        gamma, beta, mean, var = (array.astype(np.float64) for array in parameters)
        scale = gamma / np.sqrt(var + attribute_float(node, "epsilon", 1e-5))
        plain = _plain(node.inputs[0], count)
        return _Source(plain.value, scale[:, None, None, None], beta - mean * scale, plain.attributes)
    weight = parameters[0].astype(np.float64)
    if attribute_int(node, "group", 1) != count or len(weight) != count or weight[0].size > _TAPS:
        return _plain(value, count)
    bias = parameters[1].astype(np.float64) if len(parameters) > 1 else np.zeros(count)
    return _Source(node.inputs[0], weight, bias, dict(node.attributes))
