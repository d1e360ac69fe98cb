"""Per-pixel linear maps: what they are, what they are made of, and how two of them become one.

A per-pixel linear map takes the channels x of a pixel to W x + b, the same at every pixel: a 1x1 convolution of stride
1, an inference batch norm, a product or sum with one constant per channel. In a channels-first map of rank 4 it
commutes with everything that mixes pixels only, by weights that sum to one: sum_p a_p (W x_p + b) = W (sum_p a_p x_p) +
b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import (
    Draft,
    GraphEditor,
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_string,
)

__all__ = [
    "Affine",
    "ConvParts",
    "affine_of",
    "conv_parts",
    "draft_affine",
    "draft_conv",
    "is_pointwise",
]

F64 = NDArray[np.float64]
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
_NONLINEAR = ("Clip", "Erf", "HardSigmoid", "Sigmoid", "Tanh")
_REACH = 3
"""Nodes behind a non-linearity that count as part of its activation."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x -> W x + b on the channels of a pixel, in float64.

    Attributes:
        weight: (outputs, inputs), or (channels,) where W is diagonal.
        bias: (outputs,).
    """

    weight: F64
    bias: F64

    @property
    def diagonal(self) -> bool:
        """Whether each channel is scaled and shifted by itself."""
        return self.weight.ndim == 1

    @property
    def outputs(self) -> int:
        """Number of channels after the map."""
        return int(self.weight.shape[0])

    @property
    def shifts(self) -> bool:
        """Whether the bias is anything but zero."""
        return bool(self.bias.any())

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.diagonal and not self.shifts and bool((self.weight == 1.0).all())

    def after(self, first: Affine) -> Affine:
        """This map of `first`: W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)."""
        if self.diagonal:
            scale = self.weight if first.diagonal else self.weight[:, None]
            return Affine(scale * first.weight, self.weight * first.bias + self.bias)
        product = self.weight * first.weight if first.diagonal else self.weight @ first.weight
        return Affine(product, self.weight @ first.bias + self.bias)

    def split(self, sizes: Sequence[int]) -> list[Affine]:
        """Split the map by consecutive parts of the channels: their sum (of a diagonal map, their concat) is this map.

        The bias of a dense map goes to the first part.
        """
        ends = np.cumsum(sizes)[:-1]
        if self.diagonal:
            pairs = zip(np.split(self.weight, ends), np.split(self.bias, ends), strict=True)
            return [Affine(weight, bias) for weight, bias in pairs]
        zero = np.zeros_like(self.bias)
        parts = np.split(self.weight, ends, axis=1)
        return [Affine(part, zero if index else self.bias) for index, part in enumerate(parts)]

    def without_bias(self) -> Affine:
        """Return W alone."""
        return Affine(self.weight, np.zeros_like(self.bias))

    def plus(self, other: Affine) -> Affine:
        """Add another map of the same channels."""
        return Affine(self._matrix() + other._matrix(), self.bias + other.bias)

    def _matrix(self) -> F64:
        return np.diag(self.weight) if self.diagonal else self.weight


@dataclass(frozen=True, eq=False)
class ConvParts:
    """A convolution's constants.

    Attributes:
        weight: (outputs, inputs of a group, kH, kW); of a `ConvTranspose` (inputs, outputs of a group, kH, kW).
        bias: (outputs,).
        group: Number of groups.
        padded: Whether zeros are added at the border.
        dtype: Of the stored weights.
    """

    weight: F64
    bias: F64
    group: int
    padded: bool
    dtype: np.dtype[Any]


def conv_parts(editor: GraphEditor, node: ir.Node) -> ConvParts | None:
    """Find a `Conv`'s or `ConvTranspose`'s constants; None where they are not constant or the rank is not 4."""
    if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 2:
        return None
    weight = editor.constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = editor.constant(given)
    if weight is None or weight.ndim != 4 or (given is not None and bias is None):
        return None
    group = attribute_int(node, "group", 1)
    outputs = weight.shape[0] if node.op_type == "Conv" else weight.shape[1] * group
    wide = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    padded = any(attribute_ints(node, "pads", ())) or attribute_string(node, "auto_pad", "NOTSET") != "NOTSET"
    return ConvParts(weight.astype(np.float64), wide, group, padded, weight.dtype)


def is_pointwise(node: ir.Node, parts: ConvParts) -> bool:
    """Tell whether the convolution looks at one pixel and keeps the map's size."""
    steps = attribute_ints(node, "strides", (1, 1))
    return node.op_type == "Conv" and parts.weight.shape[2:] == (1, 1) and steps == (1, 1) and not parts.padded


def affine_of(editor: GraphEditor, node: ir.Node | None) -> tuple[Affine, ir.Value] | None:
    """Find the map a node computes, and of which value; None where it is no per-pixel linear map.

    A 1x1 convolution in groups of more than one channel is left out: its matrix is mostly zeros. So are the constants
    of an activation (`_in_activation`).
    """
    if node is None or not node.outputs or node.outputs[0].dtype not in _FLOATS:
        return None
    if node.op_type == "Conv":
        return _affine_conv(editor, node)
    if node.op_type == "BatchNormalization":
        return _affine_norm(editor, node)
    if node.op_type in ("Mul", "Div", "Add", "Sub") and not _in_activation(editor, node):
        return _affine_arithmetic(editor, node)
    return None


def _in_activation(editor: GraphEditor, node: ir.Node) -> bool:
    """Tell whether arithmetic with a single number follows a non-linearity closely, as an activation's last steps do.

    Engines recognise GELU, HardSwish and the like by these nodes; folding one of them away would cost more than it
    saves.
    """
    if not any((constant := editor.constant(value)) is not None and constant.size == 1 for value in node.inputs):
        return False
    front = [node]
    for _ in range(_REACH):
        made = [editor.producer(value) for earlier in front for value in earlier.inputs]
        if any(found is not None and found.op_type in _NONLINEAR for found in made):
            return True
        front = [found for found in made if found is not None and found.op_type in ("Add", "Div", "Mul")]
    return False


def _affine_conv(editor: GraphEditor, node: ir.Node) -> tuple[Affine, ir.Value] | None:
    parts, source = conv_parts(editor, node), node.inputs[0]
    if parts is None or source is None or not is_pointwise(node, parts):
        return None
    matrix = parts.weight[:, :, 0, 0]
    if parts.group == 1:
        return Affine(matrix, parts.bias), source
    if matrix.shape[1] == 1 and parts.group == matrix.shape[0]:
        return Affine(matrix[:, 0], parts.bias), source
    return None


def _affine_norm(editor: GraphEditor, node: ir.Node) -> tuple[Affine, ir.Value] | None:
    """Read scale (x - mean) / sqrt(var + epsilon) + shift."""
    source, shape = node.inputs[0], node.inputs[0].shape if node.inputs[0] is not None else None
    found = editor.constants(node.inputs[1:5])
    if source is None or found is None or shape is None or len(shape) != 4:
        return None
    if attribute_int(node, "training_mode", 0) or any(editor.uses(extra) for extra in node.outputs[1:]):
        return None
    scale, shift, mean, variance = (array.astype(np.float64) for array in found)
    factor = scale / np.sqrt(variance + attribute_float(node, "epsilon", 1e-5))
    return Affine(factor, shift - mean * factor), source


def _affine_arithmetic(editor: GraphEditor, node: ir.Node) -> tuple[Affine, ir.Value] | None:
    """Read x * c, x / c, x + c, x - c or c - x with one constant per channel."""
    for index in (0, 1):
        source, constant = node.inputs[index], editor.constant(node.inputs[1 - index])
        channels = _per_channel(source, node.outputs[0], constant)
        if source is None or channels is None:
            continue
        one, zero = np.ones_like(channels), np.zeros_like(channels)
        if node.op_type == "Add":
            return Affine(one, channels), source
        if node.op_type == "Mul":
            return Affine(channels, zero), source
        if node.op_type == "Sub":
            return (Affine(one, -channels) if index == 0 else Affine(-one, channels)), source
        if index == 0 and channels.all():
            return Affine(1.0 / channels, zero), source
    return None


def _per_channel(source: ir.Value | None, result: ir.Value, constant: NDArray[Any] | None) -> F64 | None:
    """Return one number per channel of the map, where the constant is that; None otherwise."""
    if source is None or constant is None or source.shape is None or len(source.shape) != 4:
        return None
    count = source.shape[1]
    if result.shape != source.shape or constant.ndim > 4 or not isinstance(count, int):
        return None
    sides = (1,) * (4 - constant.ndim) + constant.shape
    if sides[0] != 1 or sides[2:] != (1, 1):
        return None
    channels: F64 = np.broadcast_to(constant.astype(np.float64).reshape(-1), (count,)).copy()
    return channels


def draft_affine(
    draft: Draft, affine: Affine, source: ir.Value, shape: Sequence[int], *, norm: bool = False
) -> ir.Value:
    """Draft the nodes for a map of `source`; return the source itself for the identity.

    Args:
        draft: Takes the nodes.
        affine: The map.
        source: What it is applied to.
        shape: Of the source.
        norm: Write a scale with a shift as one batch norm, as where it came from one, not as Mul and Add.
    """
    dtype = np.dtype(source.dtype.numpy()) if source.dtype is not None else np.dtype(np.float32)
    if affine.is_identity:
        return source
    if not affine.diagonal:
        out = (shape[0], affine.outputs, *shape[2:])
        return draft_conv(draft, affine.weight[:, :, None, None], affine.bias, source, out, dtype)
    scale, shift = affine.weight.astype(dtype), affine.bias.astype(dtype)
    if norm and affine.shifts and not (affine.weight == 1.0).all():
        numbers = {"scale": scale, "shift": shift, "mean": np.zeros_like(shift), "variance": np.ones_like(shift)}
        given = [draft.constant(array, name) for name, array in numbers.items()]
        return draft.op("BatchNormalization", [source, *given], shape, epsilon=0.0)
    if not (affine.weight == 1.0).all():
        source = draft.op("Mul", [source, draft.constant(scale[None, :, None, None], "scale")], shape)
    if affine.shifts:
        source = draft.op("Add", [source, draft.constant(shift[None, :, None, None], "shift")], shape)
    return source


def draft_conv(
    draft: Draft,
    weight: F64,
    bias: F64,
    source: ir.Value,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    like: ir.Node | None = None,
) -> ir.Value:
    """Draft a convolution with these constants, rounded once to `dtype`; all else is as in `like`."""
    inputs = [source, draft.constant(weight.astype(dtype), "weight")]
    if bias.any():
        inputs.append(draft.constant(bias.astype(dtype), "bias"))
    if like is not None:
        return draft.op(like.op_type, inputs, shape, hint="conv", copied=like.attributes)
    return draft.op("Conv", inputs, shape, hint="conv", kernel_shape=list(weight.shape[2:]))
