"""Tools the algebraic passes share: constants, consumers, fixed shapes, and drafts of nodes that replace others.

A pass reads the graph through `GraphEditor`, drafts the nodes it would rather have (`Draft`), asks whether they cost
less than the nodes that fall away with them, and only then puts them in place. No output of the graph is renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.cost import Cost, cost_of, static_shape, with_shapes

__all__ = [
    "Draft",
    "GraphEditor",
    "attribute_float",
    "attribute_int",
    "attribute_ints",
    "attribute_string",
]

_LEAST_GAIN = 0.02
"""Share of what it replaces that a draft must save, since the estimate cannot tell less: ExtremeC3 on OpenVINO was 0.95
times as fast for moves that gained nothing, or 1.8 %, and as fast as before without them."""

_SMALL = 64
"""Numbers a constant may hold to be shared with an equal one."""


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Read an integer attribute, or return its default."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def attribute_float(node: ir.Node, name: str, default: float) -> float:
    """Read a float attribute, or return its default."""
    found = node.attributes.get(name)
    return default if found is None else found.as_float()


def attribute_string(node: ir.Node, name: str, default: str) -> str:
    """Read a string attribute, or return its default."""
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


def attribute_ints(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Read a list of integers, or return its default."""
    found = node.attributes.get(name)
    return tuple(default) if found is None else tuple(found.as_ints())


class GraphEditor:
    """A graph with inferred shapes that can be read and changed.

    Args:
        model: It is not changed; `to_proto` returns the changed copy.

    Attributes:
        graph: The onnx-ir graph.
        changes: How many drafts were put in place.
        declined: Why rewrites were not done, one sentence each, in order and distinct.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = ir.serde.deserialize_model(model)
        self.graph = self._model.graph
        _set_shapes(self.graph, with_shapes(model).graph.value_info)
        self.changes = 0
        self.declined: list[str] = []
        self._names = _all_names(self.graph)
        self._small = {
            key: value
            for value in self.graph.initializers.values()
            if (key := _small_key(value)) is not None and not value.is_graph_input()
        }

    def to_proto(self) -> onnx.ModelProto:
        """Write the graph as it stands, without the shapes of inner values (they are inferred again where needed)."""
        self.graph.sort()
        for name in [name for name, value in self.graph.initializers.items() if self._is_idle(value)]:
            del self.graph.initializers[name]
        model = ir.serde.serialize_model(self._model)
        del model.graph.value_info[:]
        return model

    @staticmethod
    def _is_idle(value: ir.Value) -> bool:
        return not value.uses() and not value.is_graph_output() and not value.is_graph_input()

    def decline(self, reason: str) -> None:
        """Keep a reason why something was not rewritten."""
        if reason not in self.declined:
            self.declined.append(reason)

    # --- reading -----------------------------------------------------------------------------------------------------

    def nodes(self) -> list[ir.Node]:
        """List the nodes in order; the list stays while the graph changes."""
        return list(self.graph)

    def holds(self, node: ir.Node | None) -> bool:
        """Tell whether the node is (still) part of the graph."""
        return node is not None and node.graph is self.graph

    def producer(self, value: ir.Value | None, *kinds: str) -> ir.Node | None:
        """Find the node that gives the value, where it is of one of the kinds (of any where none is given)."""
        node = None if value is None else value.producer()
        if node is None or not self.holds(node) or node.domain not in ("", "ai.onnx"):
            return None
        return node if not kinds or node.op_type in kinds else None

    def consumers(self, value: ir.Value) -> list[ir.Node]:
        """List the distinct nodes of the graph that read the value, drafts left out."""
        return list(dict.fromkeys(use.node for use in value.uses() if use.node.graph is not None))

    def uses(self, value: ir.Value) -> int:
        """Count how often the value is read, an output of the graph counted as one."""
        reads = sum(1 for use in value.uses() if use.node.graph is not None)
        return reads + int(value.is_graph_output())

    def constant(self, value: ir.Value | None) -> NDArray[Any] | None:
        """Read an initialiser or a `Constant` node; None for others. An initialiser that is an input can change."""
        if value is None or value.is_graph_input():
            return None
        if value.is_initializer() and value.const_value is not None:
            return np.asarray(value.const_value.numpy())
        node = self.producer(value, "Constant")
        found = None if node is None else node.attributes.get("value")
        return None if found is None else np.asarray(found.as_tensor().numpy())

    def constants(self, values: Iterable[ir.Value | None]) -> list[NDArray[Any]] | None:
        """Read the numbers of several values; None where one is not constant."""
        found = [self.constant(value) for value in values]
        return None if any(array is None for array in found) else [array for array in found if array is not None]

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the value's shape where it is fixed, else None."""
        return static_shape(value)

    def dead_without(self, values: Iterable[ir.Value], keep: Iterable[ir.Value] = ()) -> list[ir.Node]:
        """List the nodes nothing needs once nobody reads `values`.

        Args:
            values: Of nodes of the graph, about to be replaced everywhere (graph outputs included).
            keep: Values that go on being read, such as the inputs of what replaces them.
        """
        kept = {id(value) for value in keep}
        gone = {id(value) for value in values}
        dead: dict[int, ir.Node] = {}
        waiting = [node for value in values if (node := value.producer()) is not None]
        while waiting:
            node = waiting.pop()
            if id(node) in dead or not all(self._falls(out, gone, kept, dead) for out in node.outputs):
                continue
            dead[id(node)] = node
            waiting += [made for value in node.inputs if (made := self.producer(value)) is not None]
        return list(dead.values())

    def _falls(self, value: ir.Value, gone: set[int], kept: set[int], dead: Mapping[int, ir.Node]) -> bool:
        if id(value) in gone:
            return True
        if id(value) in kept or value.is_graph_output():
            return False
        return all(id(node) in dead for node in self.consumers(value))

    # --- changing ----------------------------------------------------------------------------------------------------

    def fresh_name(self, hint: str) -> str:
        """Make a name no value or node of the graph bears: the hint, or the hint and a number."""
        name, count = hint, 1
        while name in self._names:
            name, count = f"{hint}_{count}", count + 1
        self._names.add(name)
        return name

    def draft(self, hint: str) -> Draft:
        """Begin a draft whose nodes will be named after `hint`."""
        return Draft(self, hint)

    def add_initialiser(self, array: NDArray[Any], hint: str) -> ir.Value:
        """Add an initialiser to the graph."""
        value = constant_value(array, self.fresh_name(hint))
        self.graph.register_initializer(value)
        return value

    def register(self, value: ir.Value) -> None:
        """Make a constant an initialiser under a fresh name; share a small one that the graph has already."""
        key = _small_key(value)
        same = None if key is None else self._small.get(key)
        if same is not None and same.is_initializer():
            value.replace_all_uses_with(same)
            return
        value.name = self.fresh_name(value.name or "constant")
        self.graph.register_initializer(value)
        if key is not None:
            self._small[key] = value

    def replace(self, old: ir.Value, new: ir.Value, *, before: ir.Node) -> None:
        """Let everything that reads `old` read `new`; an output of the graph keeps its name."""
        if old.is_graph_output():
            new = self._as_output(old, new, before)
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def _as_output(self, old: ir.Value, new: ir.Value, before: ir.Node) -> ir.Value:
        """Give `new` the output's name, through an Identity where it is an input, output or initialiser already."""
        if new.is_graph_output() or new.is_graph_input() or new.is_initializer():
            node = ir.node("Identity", [new], name=self.fresh_name("identity"))
            self.graph.insert_before(before, node)
            new = node.outputs[0]
            new.type = old.type
        name = old.name or ""
        old.name = self.fresh_name(f"{name}_before")
        new.name, new.shape = name, old.shape
        return new

    def remove(self, nodes: Iterable[ir.Node]) -> None:
        """Remove nodes nothing reads."""
        self.graph.remove(list(nodes), safe=True)

    def set_input(self, node: ir.Node, index: int, value: ir.Value | None) -> None:
        """Let one input of a node read another value; what nothing reads any more goes."""
        old = node.inputs[index]
        node.replace_input_with(index, value)
        if old is not None and not self.uses(old):
            self.remove_with(old)

    def remove_with(self, value: ir.Value) -> None:
        """Remove what only served to make the value, which nothing reads."""
        if self.producer(value) is not None and not self.uses(value):
            self.remove(self.dead_without([value]))


class Draft:
    """Nodes that may replace others: built, priced, then put in place or thrown away.

    Args:
        editor: Of the graph they would be part of.
        hint: What their names begin with.
    """

    def __init__(self, editor: GraphEditor, hint: str) -> None:
        self._editor, self._hint = editor, hint
        self.nodes: list[ir.Node] = []
        self._constants: list[ir.Value] = []

    def op(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[int],
        *,
        like: ir.Value | None = None,
        hint: str = "",
        copied: Mapping[str, ir.Attr] | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Draft a node and return its single output.

        Args:
            kind: ONNX operator of the default domain.
            inputs: Values of the graph or of this draft; None for one left out.
            shape: Of the output.
            like: Value whose element type the output has; default the first input.
            hint: Added to the name.
            copied: Attributes of another node, taken over.
            attributes: More of them; those that are None are left out.
        """
        given: dict[str, Any] = dict(copied or {})
        given |= {name: value for name, value in attributes.items() if value is not None}
        node = ir.node(kind, list(inputs), given)
        out = node.outputs[0]
        out.shape = ir.Shape(shape)
        out.type = next((v.type for v in (like, *inputs) if v is not None and v.type is not None), None)
        out.meta["hint"] = f"{self._hint}_{hint or kind.lower()}"
        self.nodes.append(node)
        return out

    def constant(self, array: NDArray[Any], hint: str = "constant") -> ir.Value:
        """Draft a constant; it becomes an initialiser with the draft."""
        value = constant_value(array, f"{self._hint}_{hint}")
        self._constants.append(value)
        return value

    @property
    def cost(self) -> Cost:
        """What the drafted nodes cost."""
        return cost_of(self.nodes)

    def saved(self, replaced: Iterable[ir.Value]) -> Cost:
        """Sum what the nodes cost that fall away when these values are replaced by the draft's."""
        inputs = [value for node in self.nodes for value in node.inputs if value is not None]
        return cost_of(self._editor.dead_without(list(replaced), inputs))

    def pays(self, replaced: Iterable[ir.Value], *, penalty: float = 0.0) -> bool:
        """Tell whether the draft costs less than what it makes superfluous, by enough to be worth it.

        Args:
            replaced: Values the draft would replace.
            penalty: Seconds that are lost elsewhere, such as for a change of layout.
        """
        saved = self.saved(replaced)
        return self.cost.cheaper_than(saved, margin=penalty + _LEAST_GAIN * saved.seconds)

    def discard(self) -> None:
        """Throw the draft away."""
        self.discard_from(0)
        self._constants = []

    def discard_from(self, start: int) -> None:
        """Throw the nodes away that were drafted after the first `start`."""
        for node in self.nodes[start:]:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
        del self.nodes[start:]

    def commit(self, replacements: Mapping[ir.Value, ir.Value], *, before: ir.Node | None = None) -> None:
        """Put the draft in place of values of the graph and remove what nothing reads any more.

        Args:
            replacements: Old value -> value of the draft (or of the graph, where the draft only rewires).
            before: Node in whose place the draft goes; default the producer of the first old value.
        """
        editor = self._editor
        place = before if before is not None else next(iter(replacements)).producer()
        if place is None:
            raise ValueError("a value without a producer cannot be replaced")
        for value in (value for value in self._constants if value.uses()):
            editor.register(value)
        for node in self.nodes:
            for out in node.outputs:
                out.name = editor.fresh_name(out.meta.pop("hint", self._hint))
            node.name = editor.fresh_name(f"node_{node.outputs[0].name}")
        editor.graph.insert_before(place, self.nodes)
        for old, new in replacements.items():
            editor.replace(old, new, before=place)
        for old in replacements:
            editor.remove_with(old)
        editor.changes += 1


def constant_value(array: NDArray[Any], name: str) -> ir.Value:
    """Make a named value that holds numbers, not yet part of a graph."""
    tensor = ir.tensor(np.ascontiguousarray(array) if array.ndim else array, name=name)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def _small_key(value: ir.Value) -> tuple[str, tuple[int, ...], bytes] | None:
    """Return what distinguishes constants of a few numbers (sizes, scales); None for larger ones."""
    shape = static_shape(value)
    if value.const_value is None or shape is None or prod(shape) > _SMALL:
        return None
    array = np.asarray(value.const_value.numpy())
    return str(array.dtype), shape, array.tobytes()


def _set_shapes(graph: ir.Graph, found: Iterable[onnx.ValueInfoProto]) -> None:
    """Give inner values the shapes that were inferred, and no others."""
    infos = {info.name: info for info in found}
    for node in graph:
        for value in node.outputs:
            info = infos.get(value.name or "")
            if info is not None:
                ir.serde.deserialize_value_info_proto(info, value)
            elif not value.is_graph_output():
                value.shape = None


def _all_names(graph: ir.Graph) -> set[str]:
    names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        names.update({node.name, *(value.name for value in node.outputs)})
    return {name for name in names if name}
