"""The first convolution, of three channels, as one of several pixels at a time.

int8 convolutions have a kernel of their own where inputs are a multiple of 4 channels, and outputs 16 or more. A
channels-last picture of H x W x 3 is one of H x W/4 x 12 without a byte moved, and two outputs of a stride of 2 lie
beside each other in the same way. The kernel for 12 channels takes less time for three times the products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor, attribute_int, attribute_ints, attribute_string
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import (
    ALLOWED_DROP,
    DEQUANTISE,
    QUANTISE,
    Grid,
    QuantisedDraft,
    QuantisedGraph,
    Weight,
)

__all__ = ["FoldStems"]

_LANES, _WIDTH = 4, 16
"""What numbers of inputs and of outputs are a multiple of, and the fewest outputs, for the kernel."""


class FoldStems(GraphPass):
    """Turn convolutions of up to four channels into convolutions of several pixels at a time.

    The sums are those of the same integers, and with int8 kernels no number changes. Floats are added in another order
    than before, so that a number between two steps may be rounded to the other one.

    Requires int8 on both sides, a fixed width that divides, no groups and no dilation. Convolutions of four channels
    and 16 or more outputs have a kernel as they are.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = ALLOWED_DROP

    def apply(self, editor: GraphEditor) -> None:
        graph = QuantisedGraph(editor)
        pictures: dict[tuple[ir.Value, int], ir.Value] = {}
        for node in graph.nodes("Conv"):
            stem = _find(graph, node)
            if stem is not None:
                _fold(graph, stem, pictures)


@dataclass(frozen=True)
class _Stem:
    """A convolution, and how it is folded along the width.

    Attributes:
        node: The convolution.
        read: What dequantises the picture.
        weight: Its weights.
        pixels: Neighbours of the input whose channels lie side by side as one.
        outputs: The same of the output.
        before: Groups of pixels left of its place that an output reads.
        after: And right of it.
    """

    node: ir.Node
    read: ir.Node
    weight: Weight
    pixels: int
    outputs: int
    before: int
    after: int

    @property
    def stride(self) -> int:
        """Along the width, of the convolution as it was."""
        return attribute_ints(self.node, "strides", (1, 1))[1]

    @property
    def left(self) -> int:
        """Padding at the left, of the convolution as it was."""
        return attribute_ints(self.node, "pads", (0, 0, 0, 0))[1]


def _find(graph: QuantisedGraph, node: ir.Node) -> _Stem | None:
    """Return how to fold a convolution; None where it cannot be folded, or need not."""
    weight, read = graph.weight(node.inputs[1]), graph.dequantiser(node.inputs[0])
    shape, out = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or read is None or len(shape) != 4 or len(out) != 4 or not graph.is_quantised(node):
        return None
    if given is not None and not graph.is_constant(given):
        return None
    channels, outputs = shape[1], len(weight.numbers)
    few = 0 < channels <= _LANES and (channels % _LANES or outputs < _WIDTH)
    return _folding(node, read, weight, shape, out) if few and shape[3] and _is_plain(node, weight) else None


def _is_plain(node: ir.Node, weight: Weight) -> bool:
    dilated = {*attribute_ints(node, "dilations", ()), 1} != {1}
    padded_by_name = attribute_string(node, "auto_pad", "NOTSET") != "NOTSET"
    return weight.numbers.ndim == 4 and attribute_int(node, "group", 1) == 1 and not padded_by_name and not dilated


def _folding(
    node: ir.Node, read: ir.Node, weight: Weight, shape: tuple[int, ...], out: tuple[int, ...]
) -> _Stem | None:
    """Try numbers of pixels until inputs and outputs are as the kernel wants them."""
    stride = attribute_ints(node, "strides", (1, 1))[1]
    left = attribute_ints(node, "pads", (0, 0, 0, 0))[1]
    channels, outputs, width = shape[1], len(weight.numbers), shape[3]
    for count in (1, 2, 4, 8, 16):
        pixels = stride * count
        enough = pixels * channels % _LANES == 0 and count * outputs >= _WIDTH and count * outputs % _LANES == 0
        if enough and width % pixels == 0 and out[3] <= width // stride:
            last = (count - 1) * stride - left + weight.numbers.shape[3] - 1
            return _Stem(node, read, weight, pixels, count, -((-left) // pixels), max(last // pixels, 0))
    return None


def _fold(graph: QuantisedGraph, stem: _Stem, pictures: dict[tuple[ir.Value, int], ir.Value]) -> None:
    """Put the folded convolution in a stem's place; `pictures` holds the folded pictures, one for all that read it."""
    draft, out = graph.draft(stem.node), stem.node.outputs[0]
    key = (stem.read.outputs[0], stem.pixels)
    if key not in pictures:
        pictures[key] = _draft_picture(draft, stem)
    value = _draft_convolution(draft, stem, pictures[key])
    readers = graph.readers(out)
    if readers[0].op_type != QUANTISE:  # its ReLU or clip
        cut, *limits = readers[0], *readers[0].inputs[1:]
        value = draft.like(cut.op_type, [value, *limits], value, hint="cut", copied=cut.attributes)
        readers = graph.readers(cut.outputs[0])
    draft.commit({node.outputs[0]: _draft_unfolded(draft, stem, value, node) for node in readers}, before=stem.node)


def _draft_picture(draft: QuantisedDraft, stem: _Stem) -> ir.Value:
    """Draft the quantised picture with several pixels as one, dequantised."""
    batch, channels, height, width = draft.graph.shape(stem.node.inputs[0])
    numbers, *grid = stem.read.inputs
    shape = (batch, channels * stem.pixels, height, width // stem.pixels)
    folded = _draft_reread(draft, numbers, shape, "picture")
    return draft.like(DEQUANTISE, [folded, *grid], stem.read.outputs[0], shape=shape, hint="picture")


def _draft_convolution(draft: QuantisedDraft, stem: _Stem, picture: ir.Value) -> ir.Value:
    """Draft the convolution of several pixels at a time."""
    graph, name, weight = draft.graph, f"{stem.node.outputs[0].name}_folded", stem.weight
    batch, channels, height, _ = graph.shape(stem.node.outputs[0])
    numbers = _folded_weight(stem)
    grid = Grid(*(_repeated(graph, name, value, stem.outputs) for value in (weight.scale, weight.zero)))
    floats = draft.dequantise(graph.constant(f"{name}_weight", numbers), grid, "folded_weight", axis=0)
    bias = [_repeated(graph, name, value, stem.outputs, whole=False) for value in stem.node.inputs[2:3] if value]
    top, _, bottom, _ = attribute_ints(stem.node, "pads", (0, 0, 0, 0))
    return draft.like(
        "Conv",
        [picture, floats, *bias],
        stem.node.outputs[0],
        shape=(batch, channels * stem.outputs, height, graph.shape(picture)[3]),
        hint="folded",
        copied=stem.node.attributes,
        kernel_shape=numbers.shape[2:],
        strides=[attribute_ints(stem.node, "strides", (1, 1))[0], 1],
        pads=[top, stem.before, bottom, stem.after],
    )


def _folded_weight(stem: _Stem) -> NDArray[Any]:
    """Return the weights, at the places of the pixels they are for."""
    outputs, channels, height, width = stem.weight.numbers.shape
    shape = (stem.outputs * outputs, stem.pixels * channels, height, stem.before + stem.after + 1)
    folded: NDArray[Any] = np.zeros(shape, stem.weight.numbers.dtype)
    for place in range(stem.outputs):
        for tap in range(width):
            group, pixel = divmod(place * stem.stride - stem.left + tap, stem.pixels)
            rows = slice(place * outputs, (place + 1) * outputs)
            columns = slice(pixel * channels, (pixel + 1) * channels)
            folded[rows, columns, :, group + stem.before] = stem.weight.numbers[:, :, :, tap]
    return folded


def _repeated(graph: QuantisedGraph, stem: str, value: ir.Value, times: int, *, whole: bool = True) -> ir.Value:
    """Return a constant per channel once for every output side by side; a single number for all channels stays one."""
    array = graph.array(value)
    if array.size == 1 and whole:
        return value
    return graph.constant(f"{stem}_{value.name}", np.tile(array.reshape(-1), times))


def _draft_unfolded(draft: QuantisedDraft, stem: _Stem, value: ir.Value, quantiser: ir.Node) -> ir.Value:
    """Draft a quantiser of the folded convolution, and its outputs side by side again."""
    graph, out = draft.graph, quantiser.outputs[0]
    folded, shape = graph.shape(value), graph.shape(stem.node.outputs[0])
    inputs = [value, *quantiser.inputs[1:]]
    numbers = draft.like(QUANTISE, inputs, out, shape=folded, hint="folded_quantised", copied=quantiser.attributes)
    return _draft_reread(draft, numbers, shape, f"{out.name}_apart", cut=shape[3] < folded[3] * stem.outputs)


def _draft_reread(
    draft: QuantisedDraft, value: ir.Value | None, shape: tuple[int, ...], hint: str, *, cut: bool = False
) -> ir.Value:
    """Draft the same numbers, channels last, as a map of another shape; `cut` drops what goes beyond its width."""
    graph, (batch, channels, height, width) = draft.graph, shape
    before, last = graph.shape(value), (batch, height, width, channels)
    read = draft.like(
        "Transpose", [value], value, shape=(*before[:1], *before[2:], *before[1:2]), hint="last", perm=[0, 2, 3, 1]
    )
    sizes = graph.constant(f"channels_{channels}", np.array([0, 0, -1, channels], np.int64))
    read = draft.like("Reshape", [read, sizes], value, shape=last, hint="reshaped")
    if cut:
        ends = (("start", 0), ("end", width), ("axis", 2))
        limits = [graph.constant(f"{hint}_{name}", np.array([number], np.int64)) for name, number in ends]
        read = draft.like("Slice", [read, *limits], value, shape=last, hint="cut_off")
    return draft.like("Transpose", [read], value, shape=shape, hint="first", perm=[0, 3, 1, 2])
