"""A convolution of one pixel that is broadcast over the whole plane: nine numbers per channel instead of a plane.

Global pooling pyramids (PPM, ASPP) concatenate a pooled pixel, broadcast to the map's size, with the map, and
convolve.
For a k x k convolution of stride 1 that keeps the size, zero padding makes a constant map's result differ only within
p = padding pixels of the border: it is the result on a (2p + 1) x (2p + 1) plane whose middle row and column repeat.
So K * concat(x, broadcast(g)) = K1 * x + repeat(K2 * broadcast_small(g)).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeseg.graph.affine import ConvParts, conv_parts, draft_conv
from edgeseg.graph.editor import Draft, GraphEditor, attribute_int, attribute_ints, attribute_string
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.passes.resize import resize_rule

__all__ = ["ConvolveBroadcast"]

LEAST_SHARE = 0.25
"""Share of a convolution's input channels below which taking them out is not worth a sum behind the convolution.

An engine fuses the activation into the convolution, and the sum comes between, with a change of layout. Measured whole
on ONNX Runtime: at one eighth 0.90 to 1.01 times as fast (Fast-SCNN, UPerNet, PSPNet), at a fifth 1.00 to 1.02
(DeepLabV3).
"""


class ConvolveBroadcast(GraphPass):
    """Take broadcast pixels out of the concat before a padded k x k convolution.

    The module's text has the identity.

    Requires one group, stride 1, equal padding on all sides that keeps the size, maps larger than 2 p + 1, and constant
    weights. Declines where the sum costs more than the channels saved, and where the broadcast channels are less than
    `LEAST_SHARE` of the convolution's inputs.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            if editor.holds(node) and node.op_type == "Conv":
                _split(editor, node)


def _split(editor: GraphEditor, node: ir.Node) -> None:
    concat, parts = editor.producer(node.inputs[0], "Concat"), conv_parts(editor, node)
    shape, pad = editor.shape(node.outputs[0]), _padding(editor, node)
    if concat is None or parts is None or shape is None or pad is None or parts.group != 1:
        return
    if attribute_int(concat, "axis", 0) not in (1, -3) or min(shape[2:]) <= 2 * pad + 1:
        return
    values = [value for value in concat.inputs if value is not None]
    pixels = [_pixel(editor, value) for value in values]
    if all(pixel is None for pixel in pixels) or all(pixel is not None for pixel in pixels):
        return
    if _broadcast_share(editor, values, pixels) < LEAST_SHARE:
        editor.decline(f"Conv {node.name}: too few of its input channels are broadcast pixels")
        return
    draft = editor.draft(node.outputs[0].name or "border")
    out = _drafted(editor, draft, node, parts, values, pixels, shape, pad)
    if draft.pays([node.outputs[0]]):
        draft.commit({node.outputs[0]: out}, before=node)
    else:
        draft.discard()
        editor.decline(f"Conv {node.name}: taking the broadcast pixel out of its input costs more")


def _padding(editor: GraphEditor, node: ir.Node) -> int | None:
    """Find the padding of a convolution of stride 1 that keeps the size; None for any other, and for none at all."""
    before, after = editor.shape(node.inputs[0]), editor.shape(node.outputs[0])
    pads, steps = attribute_ints(node, "pads", (0,) * 4), attribute_ints(node, "strides", (1, 1))
    plain = attribute_string(node, "auto_pad", "NOTSET") == "NOTSET" and steps == (1, 1)
    if not plain or before is None or after is None or before[2:] != after[2:] or len(set(pads)) != 1 or not pads[0]:
        return None
    return pads[0]


def _pixel(editor: GraphEditor, value: ir.Value) -> ir.Value | None:
    """Find the single pixel the value broadcasts; None where it does not."""
    node = editor.producer(value, "Expand", "Resize")
    before, after = editor.shape(node.inputs[0] if node is not None else None), editor.shape(value)
    if node is None or before is None or after is None or len(before) != 4 or before[2:] != (1, 1):
        return None
    if before[:2] != after[:2] or (node.op_type == "Resize" and resize_rule(editor, node) is None):
        return None
    return node.inputs[0]


def _broadcast_share(editor: GraphEditor, values: list[ir.Value], pixels: list[ir.Value | None]) -> float:
    sizes = [part[1] if (part := editor.shape(value)) is not None else 0 for value in values]
    pixel_channels = sum(size for size, pixel in zip(sizes, pixels, strict=True) if pixel is not None)
    return pixel_channels / max(sum(sizes), 1)


def _drafted(
    editor: GraphEditor,
    draft: Draft,
    node: ir.Node,
    parts: ConvParts,
    values: list[ir.Value],
    pixels: list[ir.Value | None],
    shape: tuple[int, ...],
    pad: int,
) -> ir.Value:
    sizes = [part[1] for value in values if (part := editor.shape(value)) is not None]
    weights = np.split(parts.weight, np.cumsum(sizes)[:-1], axis=1)
    rest = [value for value, pixel in zip(values, pixels, strict=True) if pixel is None]
    broadcast = [pixel for pixel in pixels if pixel is not None]
    kept = np.concatenate([w for w, pixel in zip(weights, pixels, strict=True) if pixel is None], axis=1)
    gone = np.concatenate([w for w, pixel in zip(weights, pixels, strict=True) if pixel is not None], axis=1)
    batch, side = shape[0], 2 * pad + 1
    small = _concat(draft, broadcast, (batch, gone.shape[1], 1, 1))
    plane = (batch, gone.shape[1], side, side)
    tile = draft.op("Expand", [small, draft.constant(np.array(plane, np.int64), "shape")], plane)
    frame = draft_conv(draft, gone, parts.bias, tile, (batch, shape[1], side, side), parts.dtype, like=node)
    for axis in (2, 3):
        frame = _repeat(draft, frame, axis, shape[axis], pad)
    main = _concat(draft, rest, (batch, kept.shape[1], *shape[2:]))
    whole = draft_conv(draft, kept, np.zeros_like(parts.bias), main, shape, parts.dtype, like=node)
    return draft.op("Add", [whole, frame], shape)


def _concat(draft: Draft, values: list[ir.Value], shape: tuple[int, ...]) -> ir.Value:
    return values[0] if len(values) == 1 else draft.op("Concat", values, shape, axis=1)


def _repeat(draft: Draft, value: ir.Value, axis: int, size: int, pad: int) -> ir.Value:
    """Repeat the middle row (axis 2) or column (axis 3) until the side is `size`."""
    index = np.concatenate([np.arange(pad), np.full(size - 2 * pad, pad), np.arange(pad + 1, 2 * pad + 1)])
    shape = [int(dim) for dim in value.shape or () if isinstance(dim, int)]
    shape[axis] = size
    return draft.op("Gather", [value, draft.constant(index.astype(np.int64), "index")], shape, axis=axis)
