"""Pixels in half from the first cast on: 0 to 255 are exact in half, and so is what is left of a whole mean.

A picture that is cast to fp32, normalised and then cast to half is read and written in fp32 at the largest size of the
network. In half ``x + offset`` would round the offset as well as the sum; ``x + n`` is exact for a whole number n, and
what the sum with the rest of the offset rounds is no more than the cast to half would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.quantised import QUANTISE
from edgeseg.graph.roles import MOVES

__all__ = ["HalfPixels"]

_CLOSE = 2.0**-9
"""Largest error of a normalised pixel relative to itself (four roundings), or to the step between two pixels."""

_PLACES = MOVES - {"Pad", "Concat"}
"""Operators that only move pixels of one tensor."""


@dataclass(frozen=True)
class _Normalised:
    """The end of the normalisation: ``(x + shift) * factor`` per channel of what ``moves`` made of the cast picture.

    Attributes:
        value: In fp32.
        cast: The first node.
        moves: Between the cast and the arithmetic, in order.
        factor: As it broadcasts, float64.
        shift: Likewise.
    """

    value: ir.Value
    cast: ir.Node
    moves: tuple[ir.Node, ...]
    factor: NDArray[np.float64]
    shift: NDArray[np.float64]


class HalfPixels(GraphPass):
    """Cast the picture straight to half and normalise it in half.

    Requires a normalisation that scales and shifts each channel by itself, that only half and int8 operators read, and
    that is as exact in half as a cast to half is, for all 256 values of a pixel.
    """

    kind: ClassVar[Literal["exact", "rounding"]] = "rounding"
    allowed_drop: ClassVar[float] = 0.005

    def apply(self, editor: GraphEditor) -> None:
        for value in editor.graph.inputs:
            found = _normalisation(editor, value)
            if found is None:
                editor.decline("the picture is not normalised channel by channel, so that stays fp32")
            elif not _half_reads(editor, found.value):
                editor.decline("an operator in fp32 reads the normalised picture, so that stays fp32")
            else:
                parts = _parts(found)
                if parts is None:
                    editor.decline("the picture cannot be normalised in half exactly enough, so that stays fp32")
                else:
                    _rewrite(editor, found, *parts)


def _normalisation(editor: GraphEditor, image: ir.Value) -> _Normalised | None:
    """Follow the picture through its cast, moves and arithmetic with constants; None where it starts otherwise."""
    cast = _only_reader(editor, image)
    if cast is None or cast.op_type != "Cast" or cast.outputs[0].dtype != ir.DataType.FLOAT:
        return None
    value, moves = cast.outputs[0], list[ir.Node]()
    factor, shift, arithmetic = np.array(1.0), np.array(0.0), False
    while (node := _only_reader(editor, value)) is not None:
        if node.op_type in _PLACES and not arithmetic and len(node.outputs) == 1:
            moves.append(node)
        elif (step := _scaled(editor, node, value)) is not None:
            factor, shift = factor * step[0], shift * step[0] + step[1]
            arithmetic = True
        else:
            break
        value = node.outputs[0]
    if value.is_graph_output() or not factor.all():
        return None
    return _Normalised(value, cast, tuple(moves), factor, shift / factor)


def _only_reader(editor: GraphEditor, value: ir.Value) -> ir.Node | None:
    found = editor.consumers(value)
    return found[0] if len(found) == 1 and not value.is_graph_output() else None


def _scaled(
    editor: GraphEditor, node: ir.Node, value: ir.Value
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Read factor and offset of a node that scales or shifts a value by constants; None for others."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or value.shape != node.outputs[0].shape:
        return None
    index = 0 if node.inputs[0] is value else 1
    given = editor.constant(node.inputs[1 - index])
    if given is None:
        return None
    constant, zero, one = given.astype(np.float64), np.array(0.0), np.array(1.0)
    if node.op_type == "Add":
        return one, constant
    if node.op_type == "Mul":
        return constant, zero
    if node.op_type == "Sub":
        return (one, -constant) if index == 0 else (-one, constant)
    return (one / constant, zero) if index == 0 and constant.all() else None


def _half_reads(editor: GraphEditor, value: ir.Value) -> bool:
    """Whether all that reads a value casts it to half or quantises it."""
    readers = editor.consumers(value)
    casts = [node for node in readers if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT16]
    return bool(readers) and all(node in casts or node.op_type == QUANTISE for node in readers)


def _parts(found: _Normalised) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]] | None:
    """Split the shift into whole numbers and the rest, in half, with the factor; None where it is not exact enough."""
    whole = np.round(found.shift)
    with np.errstate(over="ignore"):
        first, rest, factor = (x.astype(np.float16) for x in (whole, found.shift - whole, found.factor))
    pixels = np.arange(256, dtype=np.float16).reshape(-1, *[1] * max(first.ndim, factor.ndim))
    with np.errstate(over="ignore", invalid="ignore"):
        got = (((pixels + first).astype(np.float16) + rest).astype(np.float16) * factor).astype(np.float64)
    wanted = (pixels.astype(np.float64) + found.shift) * found.factor
    allowed = _CLOSE * np.maximum(np.abs(wanted), np.abs(found.factor))
    return (first, rest, factor) if (np.abs(got - wanted) <= allowed).all() else None


def _rewrite(
    editor: GraphEditor,
    found: _Normalised,
    first: NDArray[np.float16],
    rest: NDArray[np.float16],
    factor: NDArray[np.float16],
) -> None:
    """Normalise in half beside the fp32 normalisation, and let all readers read that."""
    draft = editor.draft("pixels")
    half = draft.op("Cast", [found.cast.inputs[0]], (), hint="half", to=int(ir.DataType.FLOAT16))
    half.type, half.shape = ir.TensorType(ir.DataType.FLOAT16), found.cast.outputs[0].shape
    for node in found.moves:
        half = draft.op(node.op_type, [half, *node.inputs[1:]], (), copied=node.attributes)
        half.shape = node.outputs[0].shape
    for kind, constant, neutral in (("Add", first, 0.0), ("Add", rest, 0.0), ("Mul", factor, 1.0)):
        if (constant != neutral).any():
            half = draft.op(kind, [half, draft.constant(constant, kind.lower())], ())
            half.shape = found.value.shape
    for node in editor.consumers(found.value):
        scale = editor.constant(node.inputs[1]) if node.op_type == QUANTISE else None
        if scale is not None:
            node.replace_input_with(1, draft.constant(scale.astype(np.float16), "scale"))
    casts = [node for node in editor.consumers(found.value) if node.op_type == "Cast"]
    draft.commit({found.value: half}, before=found.cast)
    for node in casts:
        editor.replace(node.outputs[0], half, before=node)
        editor.remove([node])
