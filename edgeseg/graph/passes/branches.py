"""Branches that are added become one convolution.

Convolutions of the same map x with the same stride read x at offsets d i - p around the same places, with zeros outside
of x. Their sum is one convolution whose kernel is the sum of theirs, each laid at its offsets; the identity and a
batch normalisation of x are kernels of one tap at offset 0 (RepVGG, Ding et al., CVPR 2021, arXiv 2101.03697):

    K1 * x + b1 + K2 * x + b2 = (K1 + K2) * x + (b1 + b2).

Padding need not agree, only the offsets count, so it is exact at the border too. Kernels are added in float64.

Merging convolutions that stand side by side without being added (one wide convolution and a Split) was tried and is not
here: on ONNX Runtime 13 networks took 0.995 to 1.25 times as long, never less beyond noise, since a Split is a copy and
leaves the blocked layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.affine import affine_of, conv_parts
from edgeseg.graph.channel_relations import channels
from edgeseg.graph.editor import GraphEditor, attribute_ints, attribute_string
from edgeseg.graph.passes._base import GraphPass

__all__ = ["SumBranches"]

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Branch:
    """A linear map of `source` with a fixed kernel.

    Attributes:
        source: Map (N, C, H, W).
        weight: float64 (outputs, inputs of a group, kh, kw).
        bias: float64 (outputs,).
        first: Offset of the first tap, rows and columns: minus the padding.
        step: Dilation.
        stride: Of the outputs.
        group: Groups; 0 where the branch is a scale per channel, which fits any.
        dtype: Of the stored numbers.
    """

    source: ir.Value
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    first: Pair
    step: Pair
    stride: Pair
    group: int
    dtype: np.dtype[np.generic]

    def taps(self, axis: int) -> list[int]:
        """List the offsets of the taps along rows (0) or columns (1)."""
        return [self.first[axis] + i * self.step[axis] for i in range(self.weight.shape[2 + axis])]


class SumBranches(GraphPass):
    """Merge two added branches of the same map into one convolution.

    Requires fixed shapes, constant weights, equal strides and groups (a scale per channel or the identity fits any).
    It is done where it is cheaper and needs no more multiplications: ONNX Runtime adds within a convolution for
    nothing, so dilated kernels whose union is mostly zeros stay apart. Measured: ESPNetv2 takes 0.94 to 0.98 times as
    long.
    """

    kind = "exact"

    def apply(self, editor: GraphEditor) -> None:
        for node in editor.nodes():
            if node.op_type == "Add" and editor.holds(node):
                _merge(editor, node)


def _merge(editor: GraphEditor, node: ir.Node) -> None:
    pair = _pair(editor, node)
    out, shape = node.outputs[0], editor.shape(node.outputs[0])
    if pair is None or shape is None:
        return
    first, second = pair
    grids = [_grid(first, second, axis) for axis in (0, 1)]
    ends = [_end_padding(first, grid, shape[2 + axis], axis) for axis, grid in enumerate(grids)]
    if None in ends:
        editor.decline("two branches are read at places that no padding gives")
        return
    kernel = [len(grid) for grid in grids]
    weight = sum(_laid(branch, grids, first) for branch in pair)
    draft = editor.draft(out.name or "branches")
    inputs = [first.source, draft.constant(np.asarray(weight).astype(first.dtype), "weight")]
    inputs.append(draft.constant((first.bias + second.bias).astype(first.dtype), "bias"))
    new = draft.op(
        "Conv",
        inputs,
        shape,
        hint="conv",
        kernel_shape=kernel,
        dilations=[grid.step for grid in grids],
        strides=list(first.stride),
        pads=[-grid.start for grid in grids] + [end or 0 for end in ends],
        group=first.group,
    )
    if draft.pays([out]) and draft.cost.macs <= draft.saved([out]).macs:
        draft.commit({out: new}, before=node)
    else:
        draft.discard()
        editor.decline(f"two branches stay apart: one {kernel[0]}x{kernel[1]} kernel would cost more")


def _pair(editor: GraphEditor, node: ir.Node) -> tuple[_Branch, _Branch] | None:
    """Find the two branches, the one with groups first."""
    left, right = node.inputs
    if left is None or right is None or editor.shape(left) != editor.shape(right):
        return None
    found = [_branch(editor, left), _branch(editor, right)]
    for index, value in enumerate((left, right)):
        other = found[1 - index]
        if other is not None and other.source is value:
            found[index] = _identity(value, other)
    first, second = found
    if first is None or second is None or first.source is not second.source or first.stride != second.stride:
        return None
    if first.group == 0:
        first, second = second, first
    if first.group == 0 or (second.group not in (0, first.group)) or first.dtype != second.dtype:
        return None
    return first, second


def _identity(value: ir.Value, like: _Branch) -> _Branch:
    count = channels(value) or 0
    return _Branch(value, np.ones((count, 1, 1, 1)), np.zeros(count), (0, 0), (1, 1), (1, 1), 0, like.dtype)


def _branch(editor: GraphEditor, value: ir.Value) -> _Branch | None:
    node = editor.producer(value)
    if node is None or editor.shape(value) is None:
        return None
    parts = conv_parts(editor, node) if node.op_type == "Conv" else None
    if parts is None or node.inputs[0] is None:
        return _scale(editor, node)
    if attribute_string(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    pads = attribute_ints(node, "pads", (0, 0, 0, 0))
    step, stride = attribute_ints(node, "dilations", (1, 1)), attribute_ints(node, "strides", (1, 1))
    return _Branch(
        node.inputs[0],
        parts.weight,
        parts.bias,
        (-pads[0], -pads[1]),
        (step[0], step[1]),
        (stride[0], stride[1]),
        parts.group,
        parts.dtype,
    )


def _scale(editor: GraphEditor, node: ir.Node) -> _Branch | None:
    found = affine_of(editor, node)
    if found is None or not found[0].diagonal or found[1].dtype is None:
        return None
    affine, source = found
    weight = affine.weight[:, None, None, None]
    return _Branch(source, weight, affine.bias, (0, 0), (1, 1), (1, 1), 0, np.dtype(found[1].dtype.numpy()))


def _grid(first: _Branch, second: _Branch, axis: int) -> range:
    """List the offsets of one kernel with the taps of both, from 0 or before, since padding is not negative."""
    taps = {0, *first.taps(axis), *second.taps(axis)} if min(first.taps(axis) + second.taps(axis)) > 0 else set()
    taps = taps or {*first.taps(axis), *second.taps(axis)}
    start = min(taps)
    step = gcd(*(tap - start for tap in taps)) or 1
    return range(start, max(taps) + 1, step)


def _end_padding(branch: _Branch, grid: range, outputs: int, axis: int) -> int | None:
    """Find the padding behind the map that gives as many outputs; None where there is none."""
    length, stride = int(branch.source.shape[2 + axis]), branch.stride[axis]  # type: ignore[index, arg-type]
    reach = (outputs - 1) * stride + grid[-1] - grid[0] + 1
    end = max(0, reach - length + grid.start)
    return end if (length - grid.start + end - (grid[-1] - grid[0]) - 1) // stride + 1 == outputs else None


def _laid(branch: _Branch, grids: list[range], like: _Branch) -> NDArray[np.float64]:
    """Lay the branch's kernel on the common taps, with the inputs of a group of `like`."""
    outputs, inputs = like.weight.shape[:2]
    laid = np.zeros((outputs, inputs, len(grids[0]), len(grids[1])))
    rows, columns = ([grid.index(tap) for tap in branch.taps(axis)] for axis, grid in enumerate(grids))
    if branch.group:
        laid[:, :, np.array(rows)[:, None], np.array(columns)] = branch.weight
    else:  # output c reads channel c: within its group that is c modulo the group's inputs
        index = np.arange(outputs)
        laid[index, index % inputs, rows[0], columns[0]] = branch.weight[:, 0, 0, 0]
    return laid
