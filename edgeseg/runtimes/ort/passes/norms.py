"""Layer normalisation over few channels written as instance normalisation, for ONNX Runtime.

LayerNorm (Ba et al., 2016, arXiv 1607.06450) of tokens (N, L, C) over C is gamma z + beta, where z is each token less
its mean, over its deviation. Read as N maps of L channels with C pixels, z is the instance normalisation (Ulyanov et
al., 2016, arXiv 1607.08022) of scale 1 and shift 0. ONNX Runtime's LayerNormalization costs a fixed time per token
whatever C is; its InstanceNormalization costs by the number. Where every reader of the tokens is a linear map (through
reshapes and transposes), gamma and beta go into its weights.

Only for graphs that ONNX Runtime runs: OpenVINO and TensorRT have kernels for whole layer norms. Exact in real
arithmetic; weights are computed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.affine import Affine, conv_parts
from edgeseg.graph.editor import GraphEditor, attribute_float, attribute_int, attribute_ints
from edgeseg.graph.passes._base import GraphPass
from edgeseg.graph.passes.attention import matrix_of
from edgeseg.graph.passes.compose import through_conv, times_affine

__all__ = ["SplitNorms"]

_CHANNELS = 64
"""Most channels: with 160 of them, ONNX Runtime's LayerNormalization costs less per token than its
InstanceNormalization, with 64 about 1.7 times as much."""

_TOKENS = 1024
"""Fewest tokens: below, a call costs as much as its numbers."""


@dataclass(frozen=True)
class _Reader:
    """A linear map that reads the tokens, and its constants with gamma and beta in them."""

    node: ir.Node
    weight: NDArray[np.floating]
    bias: NDArray[np.floating]


class SplitNorms(GraphPass):
    """Write LayerNormalization as InstanceNormalization, with gamma and beta in what follows.

    Requires float32 tokens (N, L, C) of fixed shape, at least 1024 in all and of at most 64 channels, normalised over
    the channels by constants.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            if node.op_type == "LayerNormalization" and editor.holds(node):
                _split(editor, node)


def _split(editor: GraphEditor, node: ir.Node) -> None:
    value, out = node.inputs[0], node.outputs[0]
    shape, numbers = editor.shape(value), editor.constants(node.inputs[1:])
    if value is None or shape is None or numbers is None or any(other.uses() for other in node.outputs[1:]):
        return
    if len(shape) != 3 or attribute_int(node, "axis", -1) not in (-1, 2) or numbers[0].dtype != np.float32:
        return
    if shape[2] > _CHANNELS or prod(shape[:2]) < _TOKENS or any(array.shape != shape[2:] for array in numbers):
        editor.decline("layer norms of few tokens or many channels, which cost less as they are")
        return
    gamma = numbers[0].astype(np.float64)
    affine = Affine(gamma, numbers[1].astype(np.float64) if len(numbers) > 1 else np.zeros_like(gamma))
    draft = editor.draft(out.name or "norm")
    given = [draft.constant(make(shape[1], np.float32), name) for make, name in ((np.ones, "one"), (np.zeros, "zero"))]
    epsilon = attribute_float(node, "epsilon", 1e-5)
    result = draft.op("InstanceNormalization", [value, *given], shape, hint="unit", epsilon=epsilon)
    readers = _readers(editor, out, 2, affine)
    if readers is None:
        result = draft.op("Mul", [result, draft.constant(numbers[0], "gamma")], shape)
        if affine.shifts:
            result = draft.op("Add", [result, draft.constant(numbers[1], "beta")], shape)
    draft.commit({out: result}, before=node)
    for reader in readers or ():
        hint = reader.node.outputs[0].name or "reader"
        editor.set_input(reader.node, 1, editor.add_initialiser(reader.weight, f"{hint}_weight"))
        editor.set_input(reader.node, 2, editor.add_initialiser(reader.bias, f"{hint}_bias"))


def _readers(editor: GraphEditor, value: ir.Value, axis: int, affine: Affine) -> list[_Reader] | None:
    """List every reader of a value whose channels lie on `axis`, with its new constants, or None: one is not linear."""
    if value.is_graph_output():
        return None
    found: list[_Reader] = []
    for node in editor.consumers(value):
        if node.inputs[0] is not value or list(node.inputs).count(value) != 1:
            return None
        if node.op_type in ("Reshape", "Transpose"):
            moved = _moved(editor, node, axis)
            inner = None if moved is None else _readers(editor, node.outputs[0], moved, affine)
            if inner is None:
                return None
            found += inner
            continue
        reader = _conv(editor, node, axis, affine) or _gemm(editor, node, axis, affine)
        if reader is None:
            return None
        found.append(reader)
    return found


def _moved(editor: GraphEditor, node: ir.Node, axis: int) -> int | None:
    """Find where a reshape or transpose puts the axis; None where it does not stay whole."""
    before, after = editor.shape(node.inputs[0]), editor.shape(node.outputs[0])
    if before is None or after is None:
        return None
    if node.op_type == "Transpose":
        return attribute_ints(node, "perm", tuple(reversed(range(len(before))))).index(axis)
    outer = prod(before[:axis])
    places = (place for place, size in enumerate(after) if size == before[axis] and prod(after[:place]) == outer)
    return next(places, None)


def _conv(editor: GraphEditor, node: ir.Node, axis: int, affine: Affine) -> _Reader | None:
    parts = conv_parts(editor, node)
    if node.op_type != "Conv" or parts is None or axis != 1 or parts.padded or len(node.inputs) != 3:
        return None
    weight = times_affine("Conv", parts, affine)
    if weight is None:
        return None
    bias = parts.bias + through_conv(parts, affine.bias)
    return _Reader(node, weight.astype(parts.dtype), bias.astype(parts.dtype))


def _gemm(editor: GraphEditor, node: ir.Node, axis: int, affine: Affine) -> _Reader | None:
    found = matrix_of(editor, node) if node.op_type == "Gemm" and axis == 1 else None
    if found is None or found[1] is None:
        return None
    matrix, bias = found[0].astype(np.float64), found[1].astype(np.float64) + affine.bias @ found[0]
    weight = matrix * affine.weight[:, None]
    stored = weight.T if attribute_int(node, "transB", 0) else weight
    return _Reader(node, stored.astype(found[0].dtype), bias.astype(found[0].dtype))
