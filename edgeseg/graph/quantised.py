"""What the int8 passes share: look-ups in a quantised graph, and drafts of quantised nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import Draft, GraphEditor, attribute_int
from edgeseg.graph.roles import MOVES

__all__ = ["ALLOWED_DROP", "DEQUANTISE", "QUANTISE", "Grid", "QuantisedDraft", "QuantisedGraph", "Weight"]

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"

ALLOWED_DROP = 0.01
"""Share of the labels by which a pass that rounds numbers in another place may lower the score.

Ties of rounding lowered it by up to 0.0065, on an untrained network, whose logits lie close together. A pass that
computes something else lowers it by far more.
"""

_KEEPS_GRID = MOVES - {"Concat", "Pad"} | {"MaxPool", "ReduceMax", "Relu"}
"""Operators whose every output number is one of their first input's numbers, or 0."""


@dataclass(frozen=True)
class Grid:
    """The scale and zero point of quantised numbers, as constants of the graph."""

    scale: ir.Value
    zero: ir.Value


@dataclass(frozen=True)
class Weight:
    """The int8 numbers of a convolution or product, and the constants that scale and shift them."""

    numbers: NDArray[Any]
    scale: ir.Value
    zero: ir.Value


class QuantisedGraph:
    """Look up what a quantised graph holds, as it stands.

    Args:
        editor: Of the graph.
    """

    def __init__(self, editor: GraphEditor) -> None:
        self.editor = editor
        self._grids: dict[ir.Value, Grid | None] = {}

    # --- reading -----------------------------------------------------------------------------------------------------

    def nodes(self, *kinds: str) -> Iterator[ir.Node]:
        """Give the nodes of some kinds in order, without those that are removed on the way."""
        return (node for node in self.editor.nodes() if node.op_type in kinds and self.editor.holds(node))

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Return the shape of a value, 0 for an axis that is free; an empty one where nothing is known."""
        if value is None or value.shape is None:
            return ()
        return tuple(dim if isinstance(dim, int) else 0 for dim in value.shape)

    def array(self, value: ir.Value | None) -> NDArray[Any]:
        """Return the numbers of a constant.

        Raises:
            ValueError: The value is no constant.
        """
        found = self.editor.constant(value)
        if found is None:
            raise ValueError(f"{'nothing' if value is None else value.name} is no constant")
        return found

    def is_constant(self, value: ir.Value | None) -> bool:
        """Tell whether a value is a constant."""
        return self.editor.constant(value) is not None

    def readers(self, value: ir.Value) -> list[ir.Node]:
        """List the nodes of the graph that read a value, one that reads it twice two times."""
        return [use.node for use in value.uses() if use.node.graph is not None]

    def dequantiser(self, value: ir.Value | None) -> ir.Node | None:
        """Return the node that dequantised an activation to this value; None where something else gives it."""
        node = self.editor.producer(value, DEQUANTISE)
        return node if node is not None and not self.is_constant(node.inputs[0]) else None

    def weight(self, value: ir.Value | None) -> Weight | None:
        """Return the int8 constant that a value is dequantised from; None where it is something else."""
        node = self.editor.producer(value, DEQUANTISE)
        numbers = None if node is None else self.editor.constant(node.inputs[0])
        if node is None or numbers is None or node.inputs[1] is None or node.inputs[2] is None:
            return None
        return Weight(numbers, node.inputs[1], node.inputs[2])

    def activations(self, node: ir.Node) -> list[ir.Value]:
        """List the inputs that depend on the picture and that a node of the graph gives."""
        given = [value for value in node.inputs if value is not None and value.producer() is not None]
        return [value for value in given if not self.is_constant(value) and self.weight(value) is None]

    def users(self, quantiser: ir.Node) -> list[ir.Node] | None:
        """List the nodes that read a quantiser's numbers, dequantised; None where something else needs them."""
        numbers = quantiser.outputs[0]
        values = [node.outputs[0] for node in self.readers(numbers)]
        if any(value.is_graph_output() for value in (numbers, *values)):
            return None
        if any(node.op_type != DEQUANTISE for node in self.readers(numbers)):
            return None
        return list(dict.fromkeys(user for value in values for user in self.readers(value)))

    def is_quantised(self, node: ir.Node) -> bool:
        """Tell whether quantisers are all that reads a node's output, perhaps through a ReLU or clip."""
        value = node.outputs[0]
        found = self.readers(value)
        if len(found) == 1 and found[0].op_type in ("Clip", "Relu") and not value.is_graph_output():
            value = found[0].outputs[0]
            found = self.readers(value)
        return not value.is_graph_output() and bool(found) and all(reader.op_type == QUANTISE for reader in found)

    def grid(self, value: ir.Value | None) -> Grid | None:
        """Return the grid that a value's numbers lie on; None where there is none.

        They lie on one where they were just dequantised, and where they were only moved since.
        """
        if value is None:
            return None
        if value not in self._grids:
            self._grids[value] = self._find_grid(value)
        return self._grids[value]

    def _find_grid(self, value: ir.Value) -> Grid | None:
        node = self.editor.producer(value)
        if node is None:
            return None
        if node.op_type == DEQUANTISE:
            scale, zero = node.inputs[1:3]
            array = self.editor.constant(scale)
            single = self.dequantiser(value) is not None and array is not None and array.size == 1
            return Grid(scale, zero) if single and scale is not None and zero is not None else None
        if node.op_type in _KEEPS_GRID:
            return self.grid(node.inputs[0])
        if node.op_type != "Concat":
            return None
        parts = [self.grid(part) for part in node.inputs]
        same = {self._numbers(part) for part in parts}
        return parts[0] if len(same) == 1 else None

    def _numbers(self, grid: Grid | None) -> tuple[object, ...]:
        if grid is None:
            return ()
        scale, zero = self.array(grid.scale), self.array(grid.zero)
        return float(scale.item()), int(zero.item()), zero.dtype

    # --- changing ----------------------------------------------------------------------------------------------------

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Return a constant of these numbers under this name, or under one like it where other numbers have it."""
        tried, count = name, 0
        while (known := self.editor.graph.initializers.get(tried)) is not None:
            numbers = self.editor.constant(known)
            if numbers is not None and numbers.dtype == array.dtype and np.array_equal(numbers, array):
                return known
            count += 1
            tried = f"{name}_{count}"
        return self.editor.add_initialiser(array, name)

    def bypass(self, quantiser: ir.Node, users: Iterable[ir.Node]) -> None:
        """Let nodes that read a quantiser's numbers, dequantised, read what it quantised."""
        values = [node.outputs[0] for node in self.readers(quantiser.outputs[0])]
        for user in users:
            for index, value in enumerate(user.inputs):
                if value in values:
                    self.editor.set_input(user, index, quantiser.inputs[0])
                    self.editor.changes += 1

    def give_floats(self, node: ir.Node) -> None:
        """Let a node read dequantised weights as floats."""
        for index, value in enumerate(node.inputs):
            weight, reader = self.weight(value), self.editor.producer(value)
            if value is not None and weight is not None and reader is not None:
                numbers = self._floats(weight, attribute_int(reader, "axis", 1))
                self.editor.set_input(node, index, self.constant(f"{value.name}_float", numbers))
                self.editor.changes += 1

    def _floats(self, weight: Weight, axis: int) -> NDArray[np.float32]:
        """Return what a dequantiser of constants gives."""
        numbers = weight.numbers.astype(np.float64)
        scale, zero = (self.array(value).astype(np.float64) for value in (weight.scale, weight.zero))
        if scale.size > 1:
            shape = [1] * numbers.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        floats: NDArray[np.float32] = ((numbers - zero) * scale).astype(np.float32)
        return floats

    def uint8_grid(self, scale: float, zero: int) -> Grid:
        """Return the grid of uint8 numbers with this scale and zero point."""
        step = np.array(scale, np.float32)
        return Grid(
            self.constant(f"scale_{step.item().hex()}", step),
            self.constant(f"uint8_{zero}", np.array(zero, np.uint8)),
        )

    def draft(self, node: ir.Node) -> QuantisedDraft:
        """Begin a draft of what replaces a node."""
        return QuantisedDraft(self, node.outputs[0].name or "value")


class QuantisedDraft(Draft):
    """A draft that knows quantisers, and shapes of which an axis is free.

    Args:
        graph: That it is for.
        hint: What the names of its nodes begin with.
    """

    def __init__(self, graph: QuantisedGraph, hint: str) -> None:
        super().__init__(graph.editor, hint)
        self.graph = graph

    def like(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        template: ir.Value | None,
        *,
        shape: Sequence[int] | None = None,
        hint: str = "",
        copied: Mapping[str, ir.Attr] | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Draft a node whose output has the type of a template, and its shape unless one is given.

        Args:
            kind: ONNX operator.
            inputs: As `Draft.op` takes them.
            template: The value that the output is like.
            shape: Of the output where it has another; 0 for an axis that is free, empty where nothing is known.
            hint: Added to the name.
            copied: Attributes of another node, taken over.
            attributes: More of them.
        """
        out = self.op(kind, inputs, (), like=template, hint=hint, copied=copied, **attributes)
        dims = self.graph.shape(template) if shape is None else shape
        out.shape = ir.Shape([dim or None for dim in dims]) if dims else None
        return out

    def quantise(self, value: ir.Value, grid: Grid, hint: str) -> ir.Value:
        """Draft a quantiser of a value."""
        out = self.like(QUANTISE, [value, grid.scale, grid.zero], value, hint=f"{hint}_quantised")
        out.type = grid.zero.type
        return out

    def dequantise(self, numbers: ir.Value, grid: Grid, hint: str, **attributes: Any) -> ir.Value:
        """Draft what turns quantised numbers into floats."""
        out = self.like(DEQUANTISE, [numbers, grid.scale, grid.zero], numbers, hint=hint, **attributes)
        out.type = grid.scale.type
        return out

    def round_to(self, value: ir.Value, grid: Grid, hint: str) -> ir.Value:
        """Draft a quantiser and a dequantiser: the value's numbers rounded to a grid."""
        return self.dequantise(self.quantise(value, grid, hint), grid, hint)
