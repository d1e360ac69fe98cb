"""How an operator ties the orders of its values' channels together: the rules of the channel-order analysis.

`relation_of` gives one of four relations for a node, or raises `BlockedError` with what is in the way:

- `Alike`: some values have one order in common. Elementwise operators, pooling, resizing, normalisation, quantisers.
- `Joined`: one value is others side by side along the channels. Concat and Split.
- `Weighted`: a convolution with known weights, which can be written for any order on either side.
- `Reduced`: the channels are reduced away, so that their order before does not matter.

`edgeseg.graph.channel_order` solves them for orders that agree, `edgeseg.graph.channel_padding` for
channels of zeros that may be added, and `edgeseg.graph.channel_constants` writes a node's constants in the
orders that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor, attribute_int

__all__ = [
    "Alike",
    "BlockedError",
    "Joined",
    "Order",
    "PerChannel",
    "Reduced",
    "Relation",
    "StoredWeight",
    "Weighted",
    "channels",
    "relation_of",
    "same_dims",
    "stored_weight",
]

Order = tuple[int, ...]
"""Stored position -> the channel that lies there; -1 where there is a channel of zeros."""


class BlockedError(Exception):
    """Why no orders agree; never leaves the passes."""


@dataclass(frozen=True)
class PerChannel:
    """A constant input with one number per channel.

    Attributes:
        index: Of the input.
        axis: Of the constant along which the channels lie.
        fill: Number for a channel of zeros.
    """

    index: int
    axis: int = 0
    fill: float = 0.0


@dataclass(frozen=True)
class Alike:
    """Values that have one order in common.

    Attributes:
        values: Those whose order is the node's; the output is among them.
        constants: Constants that are written in that order.
        counts: Index of a constant input that holds the output's shape; None where there is none.
        keeps_zeros: Whether channels of zeros may be among them: they become channels of finite numbers, and no other
            channel changes.
    """

    values: tuple[ir.Value, ...]
    constants: tuple[PerChannel, ...] = ()
    counts: int | None = None
    keeps_zeros: bool = False


@dataclass(frozen=True)
class Joined:
    """A value that is the parts one after the other along the channels."""

    whole: ir.Value
    parts: tuple[ir.Value, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Weighted:
    """A convolution.

    Attributes:
        source: What it reads.
        out: What it gives.
        group: Number of groups; within one any order will do, and whole groups may change places on both sides alike.
        transposed: Whether it is a `ConvTranspose`, whose weights have the inputs first.
        weight: Its numbers.
    """

    source: ir.Value
    out: ir.Value
    group: int
    transposed: bool
    weight: StoredWeight

    @property
    def depthwise(self) -> bool:
        """Whether every output reads the one input at its place."""
        return not self.transposed and self.group > 1 and self.weight.numbers.shape[:2] == (self.group, 1)


@dataclass(frozen=True)
class Reduced:
    """A value whose channels are reduced away."""

    source: ir.Value
    out: ir.Value


Relation = Alike | Joined | Weighted | Reduced


@dataclass(frozen=True)
class StoredWeight:
    """A convolution's weights as they are stored.

    Attributes:
        numbers: Floats, or the integers they are dequantised from.
        dequantiser: The node that dequantises them; None where they are floats.
    """

    numbers: NDArray[Any]
    dequantiser: ir.Node | None = None


def relation_of(editor: GraphEditor, node: ir.Node) -> Relation:
    """Say how the orders of a node's values belong together.

    Raises:
        BlockedError: The node needs its channels as they are.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain not in ("", "ai.onnx"):
        raise BlockedError(f"{node.op_type} needs its channels in order")
    return rule(editor, node)


def channels(value: ir.Value | None) -> int | None:
    """Length of axis 1 where it is a known number, else None."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    length = value.shape[1]
    return length if isinstance(length, int) else None


def same_dims(first: ir.Value, second: ir.Value, axes: Iterable[int]) -> bool:
    """Tell whether these axes have the same length in both, by number or by name; unknown ones have not."""
    if first.shape is None or second.shape is None:
        return False
    pairs = [(first.shape[axis], second.shape[axis]) for axis in axes]
    return all(a == b and (isinstance(a, int) or a.value is not None) for a, b in pairs)


def stored_weight(editor: GraphEditor, value: ir.Value | None) -> StoredWeight | None:
    """Find the numbers of a constant, or of the constant it is dequantised from; None where it is neither."""
    numbers = editor.constant(value)
    if numbers is not None:
        return StoredWeight(numbers)
    node = editor.producer(value, "DequantizeLinear")
    parameters = None if node is None else editor.constants(node.inputs)
    return None if node is None or parameters is None else StoredWeight(parameters[0], node)


# --- rules: operators that treat channels alike ---


def _elementwise(editor: GraphEditor, node: ir.Node) -> Relation:
    out = node.outputs[0]
    values = [out]
    constants = []
    for index, value in enumerate(node.inputs):
        if value is None or _is_scalar(value):
            continue
        if editor.constant(value) is not None:
            axis = _channel_axis(value, out)
            constants += [] if axis is None else [PerChannel(index, axis)]
            continue
        if out.shape is None or value.shape is None or len(value.shape) != len(out.shape):
            raise BlockedError(f"{node.op_type} combines values of different rank")
        if channels(value) != 1 or channels(out) == 1:
            values.append(value)
    return Alike(tuple(values), tuple(constants), keeps_zeros=node.op_type in _FINITE)


def _is_scalar(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 0


def _channel_axis(constant: ir.Value, out: ir.Value) -> int | None:
    """Find the axis of a constant along which its numbers are one per channel of the result, or None."""
    if constant.shape is None or out.shape is None:
        return None
    axis = len(constant.shape) - len(out.shape) + 1
    return axis if axis >= 0 and constant.shape[axis] == channels(out) else None


def _passes_on(editor: GraphEditor, node: ir.Node) -> Alike:
    """Relate what treats every channel alike and by itself (or by a function that treats all alike)."""
    first = node.inputs[0]
    if first is None:
        raise BlockedError(f"{node.op_type} has no input")
    return Alike((first, node.outputs[0]), keeps_zeros=node.op_type in _FINITE)


def _per_channel(editor: GraphEditor, node: ir.Node) -> Relation:
    if any(editor.constant(value) is None for value in node.inputs[1:]):
        raise BlockedError(f"{node.op_type} has parameters that are not constant")
    norm = node.op_type == "BatchNormalization"
    constants = [PerChannel(index, fill=1.0 if norm and index == 4 else 0.0) for index in range(1, len(node.inputs))]
    return replace(_passes_on(editor, node), constants=tuple(constants), keeps_zeros=norm)


def _quantiser(editor: GraphEditor, node: ir.Node) -> Relation:
    scale = editor.constant(node.inputs[1])
    if scale is None or scale.size != 1:
        raise BlockedError(f"{node.op_type} has a scale per channel, or one that is not constant")
    return replace(_passes_on(editor, node), keeps_zeros=True)


def _resize(editor: GraphEditor, node: ir.Node) -> Relation:
    """Relate a resize; its sizes, which count the channels, must be known where zeros are added."""
    alike = _passes_on(editor, node)
    given = [*node.inputs, None, None, None][2:4]
    scales, sizes = (editor.constant(value) for value in given)
    known = [array for array in (scales, sizes) if array is not None and array.size == 4]
    keeps = bool(known) and "axes" not in node.attributes
    if given[0] is not None and keeps:
        keeps = bool((known[0][:2] == 1).all())
    return replace(alike, counts=None if sizes is None else 3, keeps_zeros=keeps)


def _reduce(editor: GraphEditor, node: ir.Node) -> Relation:
    """Relate a reduction; over the channels themselves the order does not matter."""
    axes = _axes(editor, node, 1)
    if axes is None or 0 in axes:
        raise BlockedError(f"{node.op_type} reduces over unknown axes or the batch")
    if 1 in axes:
        if node.inputs[0] is None:
            raise BlockedError(f"{node.op_type} has no input")
        return Reduced(node.inputs[0], node.outputs[0])
    keeps = node.op_type in ("ReduceMax", "ReduceMean") and bool(attribute_int(node, "keepdims", 1))
    return replace(_passes_on(editor, node), keeps_zeros=keeps and all(axis in (2, 3) for axis in axes))


def _axes(editor: GraphEditor, node: ir.Node, index: int) -> list[int] | None:
    """Read the axes an operator names in an attribute or a constant input, counted from the front."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    found = node.attributes.get("axes")
    axes = list(found.as_ints()) if found is not None else None
    if axes is None and len(node.inputs) > index:
        axes = _integers(editor, node.inputs[index])
    if axes is None or shape is None:
        return None
    return [axis % len(shape) for axis in axes]


def _integers(editor: GraphEditor, value: ir.Value | None) -> list[int] | None:
    found = editor.constant(value)
    return None if found is None else [int(i) for i in found.ravel()]


def _pad(editor: GraphEditor, node: ir.Node) -> Relation:
    pads = _integers(editor, node.inputs[1]) if len(node.inputs) > 1 else None
    if pads is None or len(node.inputs) > 3 or any(pads[i] for i in (0, 1, len(pads) // 2, len(pads) // 2 + 1)):
        raise BlockedError("Pad adds channels, or an unknown number of them")
    return _passes_on(editor, node)


def _slice(editor: GraphEditor, node: ir.Node) -> Relation:
    axes = _axes(editor, node, 3)
    if axes is None or 1 in axes:
        raise BlockedError("Slice takes some of the channels")
    return _passes_on(editor, node)


def _reshape(editor: GraphEditor, node: ir.Node) -> Relation:
    """Relate a reshape that leaves batch and channels, so that the places of a channel stay together."""
    source, out = node.inputs[0], node.outputs[0]
    if source is None or not same_dims(source, out, range(2)):
        raise BlockedError("Reshape mixes the channels with places")
    return _passes_on(editor, node)


def _matrix(editor: GraphEditor, node: ir.Node) -> Relation:
    """Relate a product of maps (N, C, ., .) with constant matrices, as of pooling: one per channel."""
    given = [value for value in node.inputs if value is not None]
    maps = [value for value in given if editor.constant(value) is None]
    if any(value.shape is None or len(value.shape) < 4 for value in maps):
        raise BlockedError("MatMul may mix the channels")
    if any(len(value.shape or ()) > 2 for value in given if value not in maps):
        raise BlockedError("MatMul has a matrix per channel")
    return Alike((*maps, node.outputs[0]))


# --- rules: operators that join channels, or mix them by known weights ---


def _concat(editor: GraphEditor, node: ir.Node) -> Relation:
    parts = [value for value in node.inputs if value is not None]
    if _axis(node, 0) != 1:
        return Alike((*parts, node.outputs[0]))
    return _joined(node.outputs[0], parts)


def _split(editor: GraphEditor, node: ir.Node) -> Relation:
    whole = node.inputs[0]
    if whole is None or _axis(node, 0) != 1:
        return Alike(tuple(value for value in (whole, *node.outputs) if value is not None))
    return _joined(whole, node.outputs)


def _axis(node: ir.Node, default: int) -> int:
    axis = attribute_int(node, "axis", default)
    shape = node.outputs[0].shape
    if axis < 0 and shape is None:
        raise BlockedError(f"the rank of a {node.op_type} is not known")
    return axis + len(shape) if axis < 0 and shape is not None else axis


def _joined(whole: ir.Value, parts: Sequence[ir.Value]) -> Relation:
    sizes = [size for part in parts if (size := channels(part)) is not None]
    if len(sizes) != len(parts):
        raise BlockedError("the number of channels is not known")
    return Joined(whole, tuple(parts), tuple(sizes))


def _convolution(editor: GraphEditor, node: ir.Node) -> Relation:
    source, weight = node.inputs[0], stored_weight(editor, node.inputs[1])
    others = [value for value in node.inputs[2:] if value is not None]
    if source is None or weight is None or editor.constants(others) is None:
        raise BlockedError("a convolution's weights are not constant")
    group, transposed = attribute_int(node, "group", 1), node.op_type == "ConvTranspose"
    if weight.dequantiser is not None and not _scaled_by_output(editor, weight.dequantiser, transposed, group):
        raise BlockedError("a convolution's weights are not scaled by output channel")
    return Weighted(source, node.outputs[0], group, transposed, weight)


def _scaled_by_output(editor: GraphEditor, dequantiser: ir.Node, transposed: bool, group: int) -> bool:
    """Tell whether quantised weights have one scale, or one per output channel."""
    scale = editor.constant(dequantiser.inputs[1])
    if scale is None or (transposed and group > 1):
        return False
    return scale.size == 1 or attribute_int(dequantiser, "axis", 1) == (1 if transposed else 0)


_ELEMENTWISE = [
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow",
    "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub",
    "Sum", "Tanh", "ThresholdedRelu",
]  # fmt: skip
_ALIKE = [
    "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Hardmax", "LogSoftmax", "LpPool",
    "MaxPool", "Softmax",
]  # fmt: skip
_REDUCTIONS = [
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
]  # fmt: skip
_FINITE = {
    "Add", "AveragePool", "Clip", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Max", "MaxPool", "Min", "Mul", "PRelu", "Relu", "Sigmoid", "Sub", "Tanh",
}  # fmt: skip
"""Operators that make finite numbers of zeros, and read no channel for another."""

_RULES: Mapping[str, Callable[[GraphEditor, ir.Node], Relation]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_ALIKE, _passes_on),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "BatchNormalization": _per_channel,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "DequantizeLinear": _quantiser,
    "InstanceNormalization": _per_channel,
    "MatMul": _matrix,
    "Pad": _pad,
    "QuantizeLinear": _quantiser,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
}
