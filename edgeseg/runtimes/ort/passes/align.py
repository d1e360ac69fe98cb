"""Channels in numbers that ONNX Runtime's int8 kernels are written for.

Its int8 convolution has a special kernel where inputs are a multiple of 4 channels, and outputs 16 or more and a
multiple of 4, and a detour over a copy of every window elsewhere, which takes twice the time. Depthwise convolutions
want a multiple of 16. So convolutions give channels of zero weights more, up to the next multiple, and what reads them
has zero weights for these: no number of the network changes (`edgeseg.graph.channel_padding`).
"""

from __future__ import annotations

from typing import ClassVar

import onnx
import onnx_ir as ir

from edgeseg.graph.channel_padding import pad_channels
from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass, Kind

__all__ = ["AlignChannels"]

_BLOCK, _FEW = 16, 4


class AlignChannels(GraphPass):
    """Let convolutions give a multiple of 16 channels, or of 4 where they have a handful.

    Requires a quantised graph with fixed channels and constant weights. Leaves convolutions alone whose channels
    something needs as they are: a product, a split, the graph's output.
    """

    kind: ClassVar[Kind] = "exact"

    def requires(self, model: onnx.ModelProto) -> str:
        quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        return "" if quantised else "the graph is not quantised"

    def apply(self, editor: GraphEditor) -> None:
        pad_channels(editor, _width)


def _width(node: ir.Node, count: int) -> int:
    """Choose how many channels a convolution or a concat gives in place of so many."""
    if node.op_type == "Concat":
        return _up(count, _BLOCK) if count > _BLOCK else count
    return count if count < 3 else _up(count, _FEW if count < 8 else _BLOCK)


def _up(count: int, step: int) -> int:
    return -(-count // step) * step
