"""Join a per-pixel linear map with the convolution after it, and move it behind an average.

Identities, for z = A u + b at every pixel (`edgeseg.graph.affine`) and a convolution K:
    K * z + c         = (K A) * u + (sum of K over its taps) b + c    where no zeros are added at the border, or b = 0
    K * (s u + b) + c = (K s) * (u + b / s) + c                       with a diagonal s, whatever the padding
    mean(A u + b)     = A mean(u) + b                                 also for a resize, whose weights sum to one
The opposite direction, a map after a convolution, is `edgeseg.graph.passes.push`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.affine import Affine, ConvParts, affine_of, conv_parts, draft_affine, draft_conv
from edgeseg.graph.averages import is_mean
from edgeseg.graph.editor import Draft, GraphEditor, attribute_string
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.passes.resize import draft_resize, resize_rule

__all__ = ["ComposeConvs", "ShrinkFirst", "through_conv", "times_affine"]

_CHAIN = 4
"""Maps in a row that are joined at most."""

F64 = NDArray[np.float64]


class ComposeConvs(GraphPass):
    """Fold what is linear per pixel into the convolution that reads it.

    The module's text has the identities.

    Requires constant weights; a 1x1 convolution besides needs one group in the second. Declines where a bias meets a
    padded border, and where the joint convolution costs more than the two.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            while editor.holds(node) and node.op_type in ("Conv", "ConvTranspose"):
                made = _compose(editor, node)
                if made is None:
                    break
                node = made


class ShrinkFirst(GraphPass):
    """Average or shrink a map before, not after, what is linear per pixel, where that costs less."""

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in reversed(editor.nodes()):
            if editor.holds(node) and node.op_type in ("AveragePool", "GlobalAveragePool", "ReduceMean", "Resize"):
                _shrink(editor, node)


def _compose(editor: GraphEditor, node: ir.Node) -> ir.Node | None:
    """Go one step; return the new convolution, or None where nothing was done."""
    parts = conv_parts(editor, node)
    if parts is None or editor.shape(node.outputs[0]) is None:
        return None
    chain = _chain(editor, node)
    for steps, (affine, source) in reversed([*enumerate(chain, 1)]):
        draft = editor.draft(node.outputs[0].name or "composed")
        out = _joined(editor, draft, node, parts, affine, source, apart=steps > 1)
        if out is not None and draft.pays([node.outputs[0]]):
            draft.commit({node.outputs[0]: out}, before=node)
            return out.producer()
        draft.discard()
        if out is not None:
            editor.decline(f"{node.op_type} {node.name}: joined with the map before it, it costs more")
    return None


def _chain(editor: GraphEditor, node: ir.Node) -> list[tuple[Affine, ir.Value]]:
    """Join the maps before a node: the nearest, the nearest two, and so on."""
    found: list[tuple[Affine, ir.Value]] = []
    value = node.inputs[0]
    while len(found) < _CHAIN and (inner := affine_of(editor, editor.producer(value))) is not None:
        affine, value = inner
        found.append((affine if not found else found[-1][0].after(affine), value))
    return found


def _joined(
    editor: GraphEditor,
    draft: Draft,
    node: ir.Node,
    parts: ConvParts,
    affine: Affine,
    source: ir.Value,
    *,
    apart: bool,
) -> ir.Value | None:
    """Draft the convolution; `apart` lets a shift stay before it, of a scale and shift in more than one node."""
    shape = editor.shape(node.outputs[0])
    weight = times_affine(node.op_type, parts, affine)
    if weight is None or shape is None:
        return None
    if not affine.shifts:
        return draft_conv(draft, weight, parts.bias, source, shape, parts.dtype, like=node)
    if node.op_type == "Conv" and not parts.padded:
        bias = parts.bias + through_conv(parts, affine.bias)
        return draft_conv(draft, weight, bias, source, shape, parts.dtype, like=node)
    size = editor.shape(source)
    if apart and affine.diagonal and affine.weight.all() and not (affine.weight == 1.0).all() and size is not None:
        shift = Affine(np.ones_like(affine.weight), affine.bias / affine.weight)
        moved = draft_affine(draft, shift, source, size)
        return draft_conv(draft, weight, parts.bias, moved, shape, parts.dtype, like=node)
    if not (affine.diagonal and (affine.weight == 1.0).all()):
        editor.decline(f"{node.op_type} {node.name}: the bias before it would be wrong at its padded border")
    return None


def times_affine(kind: str, parts: ConvParts, affine: Affine) -> F64 | None:
    """Multiply the convolution's weights by the matrix before it; None where groups forbid it."""
    weight = parts.weight
    if kind == "ConvTranspose":
        if affine.diagonal:
            return weight * affine.weight[:, None, None, None]
        mixed: F64 = np.tensordot(affine.weight, weight, (0, 0))
        return mixed if parts.group == 1 else None
    if affine.diagonal:
        return weight * _by_group(affine.weight, parts)[:, :, None, None]
    if parts.group > 1:
        return None
    product: F64 = np.tensordot(affine.weight, weight, (0, 1)).swapaxes(0, 1)
    return product


def through_conv(parts: ConvParts, bias: F64) -> F64:
    """Compute what an unpadded convolution makes of a constant map."""
    taps: F64 = parts.weight.sum(axis=(2, 3))
    if parts.group == 1:
        return taps @ bias
    summed: F64 = (taps * _by_group(bias, parts)).sum(axis=1)
    return summed


def _by_group(channels: F64, parts: ConvParts) -> F64:
    """Give each weight, (outputs, inputs of a group), the number of the input channel that it reads."""
    outputs = parts.weight.shape[0]
    rows = channels.reshape(parts.group, -1)
    wide: F64 = np.repeat(rows, outputs // parts.group, axis=0)
    return wide


def _shrink(editor: GraphEditor, node: ir.Node) -> None:
    inner = affine_of(editor, editor.producer(node.inputs[0]))
    before, after = editor.shape(node.inputs[0]), editor.shape(node.outputs[0])
    if inner is None or before is None or after is None or len(after) != 4:
        return
    if after[2] * after[3] >= before[2] * before[3]:
        return
    affine, source = inner
    channels = editor.shape(source)
    if channels is None:
        return
    draft = editor.draft(node.outputs[0].name or "shrunk")
    small = _shrunk(editor, draft, node, source, (channels[0], channels[1], *after[2:]))
    if small is None:
        return
    out = draft_affine(draft, affine, small, (*channels[:2], *after[2:]))
    if draft.pays([node.outputs[0]]):
        draft.commit({node.outputs[0]: out}, before=node)
    else:
        draft.discard()
        editor.decline(f"{node.op_type} {node.name}: done before the map it reads, it costs more")


def _shrunk(
    editor: GraphEditor, draft: Draft, node: ir.Node, source: ir.Value, shape: tuple[int, ...]
) -> ir.Value | None:
    if node.op_type == "Resize":
        rule = resize_rule(editor, node)
        return None if rule is None else draft_resize(draft, rule, source, (shape[0], shape[1]))
    if not is_mean(editor, node) or attribute_string(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    return draft.op(node.op_type, [source, *node.inputs[1:]], shape, copied=node.attributes)
