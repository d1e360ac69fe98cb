"""An int8 graph as ONNX Runtime's CPU kernels want it written: the same network, for that one engine.

ONNX Runtime runs an operator in int8 where quantisers stand right before and after it, and in float elsewhere. NNCF
leaves out quantisers that change nothing, and other engines need none there:

- every tensor becomes uint8 (`qdq.as_uint8`): kernels want one type on both sides;
- a tensor whose numbers lie on a known grid (a concat of tensors of one scale, the largest of a window) gets a
  quantiser of that grid before a convolution or sum reads it. That changes no number, and the operator runs in int8;
- a small average pool becomes a depthwise convolution, whose kernel takes a tenth of the time;
- a depthwise convolution with several outputs per channel, which has no kernel of its own, becomes one with a single
  output each, after a 1x1 convolution that repeats the channels;
- a 1x1 convolution whose output stays float (a classifier) becomes a product of integers, scaled afterwards, where it
  has fewer outputs than inputs: else its inputs are made float first, and put in another layout;
- PReLU, which has no int8 kernel, becomes the larger of x and s x (`passes.prelu`);
- a shift per channel of the picture becomes one per channel and column: kernels run channels-last, where adding three
  numbers at a time takes ten times as long as adding a row of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeseg.export.passes.cost import with_shapes
from edgeseg.export.passes.prelu import SpreadPRelu
from edgeseg.export.precision.qdq import as_uint8, copied, tidy
from edgeseg.export.precision.roles import MOVES, normalisation_nodes

__all__ = [
    "classifiers_as_products",
    "for_onnxruntime",
    "pools_as_convolutions",
    "quantise_grids",
    "repeat_for_depthwise",
    "widen_shifts",
]

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_KEEPS_GRID = MOVES - {"Concat", "Pad"} | {"MaxPool", "ReduceMax", "Relu"}
"""Operators whose every output number is one of their first input's numbers, or 0."""
_TAPS = 9
"""Largest window of an average pool that becomes a convolution (3x3 of stride 2, 128x128x256: 4.3 and 0.3 ms)."""
_ACTIVATIONS = {"Add": 2, "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 2, "Mul": 2}
"""Operators with an int8 kernel, and how many of their inputs are activations."""

Constants = dict[str, NDArray[np.generic]]


def for_onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph for ONNX Runtime on the CPU; `model` is as `quantise` makes it, and is not changed."""
    made = as_uint8(model)
    for step in (pools_as_convolutions, quantise_grids, repeat_for_depthwise, classifiers_as_products, widen_shifts):
        made = step(made)
    return SpreadPRelu(blocked=False)(made).model


def quantise_grids(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put a quantiser where numbers that lie on a grid already are read by an operator with an int8 kernel."""
    copy = copied(model)
    grids, readers = _Grids(copy), _readers(copy)
    quantised: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        read = list(node.input[: _ACTIVATIONS.get(node.op_type, 0)])
        found = [grids.of(name) for name in read]
        if all(found) and _is_quantised(node, readers):
            for index, (name, grid) in enumerate(zip(read, found, strict=True)):
                if grid is None or grids.is_dequantised(name):
                    continue
                node.input[index] = f"{name}_grid"
                if name not in quantised:
                    quantised.add(name)
                    nodes += _quantisers(name, f"{name}_grid", grid)
        nodes.append(node)
    return _with_nodes(copy, nodes)


def pools_as_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Average pools between quantisers as depthwise convolutions of one weight, which int8 holds exactly.

    Requires fixed channels, a window of at most `_TAPS` numbers whose border counts (or none), and sizes rounded down.
    """
    copy = copied(model)
    shapes, grids = _shapes(copy), _Grids(copy)
    readers = _readers(copy)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        shape = shapes.get(node.input[0]) if node.input else None
        attributes = _attributes(node)
        if (
            node.op_type != "AveragePool"
            or not shape
            or len(shape) != 4
            or not shape[1]
            or not _counts_border(attributes)
            or prod(_integers(attributes["kernel_shape"])) > _TAPS
            or grids.of(node.input[0]) is None
            or not _is_quantised(node, readers)
        ):
            nodes.append(node)
            continue
        nodes += _pool(copy, node, shape[1], attributes)
    return _with_nodes(copy, nodes)


def repeat_for_depthwise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Depthwise convolutions of several outputs per channel as repeated channels of one output each; no number changes.

    Requires a quantised input and output, and constant weights.
    """
    copy = copied(model)
    grids, readers = _Grids(copy), _readers(copy)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        weight = grids.quantised_constant(node.input[1]) if node.op_type == "Conv" else None
        group = _attributes(node).get("group", 1)
        if (
            weight is not None
            and grids.is_dequantised(node.input[0])
            and _is_quantised(node, readers)
            and weight.shape[1] == 1
            and len(weight) > group > 1
        ):
            grid = grids.of(node.input[0])
            if grid is not None:
                nodes += _repeated(copy, node, len(weight), int(group), grid)
                _set_attribute(node, "group", len(weight))
        nodes.append(node)
    return _with_nodes(copy, nodes)


def classifiers_as_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """1x1 convolutions of quantised maps to fewer float channels, as MatMulInteger of channels-last maps.

    The sums are those of the convolution in exact arithmetic; they are scaled and shifted as it would.
    """
    copy = copied(model)
    constants, grids, readers = _constants(copy), _Grids(copy), _readers(copy)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        made = None
        if node.op_type == "Conv" and not _is_quantised(node, readers) and _is_pointwise(_attributes(node)):
            made = _product(copy, node, constants, grids)
        nodes += made or [node]
    return _with_nodes(copy, nodes)


def widen_shifts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants per channel that the picture is scaled or shifted by, repeated for every column of a fixed width."""
    copy = copied(model)
    shapes, constants = _shapes(copy), _constants(copy)
    pixels = set(normalisation_nodes(copy))
    for node in copy.graph.node:
        shape = shapes.get(node.output[0])
        if node.name not in pixels or node.op_type not in ("Add", "Mul", "Sub", "Div") or not shape or len(shape) != 4:
            continue
        for index, name in enumerate(node.input):
            array = constants.get(name)
            if array is not None and array.shape == (1, shape[1], 1, 1) and shape[1] > 1 and shape[3]:
                wide = np.ascontiguousarray(np.broadcast_to(array, (1, shape[1], 1, shape[3])))
                node.input[index] = f"{name}_wide"
                if f"{name}_wide" not in constants:
                    constants[f"{name}_wide"] = wide
                    copy.graph.initializer.append(numpy_helper.from_array(wide, f"{name}_wide"))
    return tidy(copy)


class _Grids:
    """Which values hold multiples of a known scale: those that were just dequantised, and what only moves them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._producers = {output: node for node in model.graph.node for output in node.output}
        self._constants = _constants(model)
        self._found: dict[str, tuple[str, str] | None] = {}

    def is_dequantised(self, name: str) -> bool:
        """Whether a value comes right from a quantised tensor (not from quantised weights)."""
        node = self._producers.get(name)
        return node is not None and node.op_type == _DQ and node.input[0] in self._producers

    def quantised(self, name: str) -> onnx.NodeProto | None:
        """The dequantiser a value comes right from."""
        node = self._producers.get(name)
        return node if node is not None and node.op_type == _DQ else None

    def quantised_constant(self, name: str) -> NDArray[np.generic] | None:
        """The int8 numbers of a constant that a value is dequantised from."""
        node = self.quantised(name)
        return None if node is None else self._constants.get(node.input[0])

    def of(self, name: str) -> tuple[str, str] | None:
        """Names of scale and zero point of the grid a value lies on; None where there is none."""
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def _look(self, name: str) -> tuple[str, str] | None:
        node = self._producers.get(name)
        if node is None:
            return None
        if node.op_type == _DQ:
            whole = self.is_dequantised(name) and self._constants[node.input[1]].size == 1
            return (node.input[1], node.input[2]) if whole else None
        if node.op_type in _KEEPS_GRID:
            return self.of(node.input[0])
        if node.op_type != "Concat":
            return None
        parts = [self.of(part) for part in node.input]
        same = {self._numbers(part) for part in parts}
        return parts[0] if len(same) == 1 else None

    def _numbers(self, grid: tuple[str, str] | None) -> tuple[object, ...]:
        if grid is None:
            return ()
        scale, zero = (self._constants[name] for name in grid)
        return float(scale.item()), int(zero.item()), zero.dtype


def _quantisers(name: str, out: str, grid: tuple[str, str]) -> list[onnx.NodeProto]:
    middle = f"{out}_quantised"
    return [
        helper.make_node(_Q, [name, *grid], [middle], name=f"{middle}_q"),
        helper.make_node(_DQ, [middle, *grid], [out], name=f"{out}_dq"),
    ]


def _pool(
    model: onnx.ModelProto, node: onnx.NodeProto, channels: int, attributes: dict[str, object]
) -> list[onnx.NodeProto]:
    """A depthwise convolution of weights 127 with the scale that makes them one share of the window."""
    kernel = _integers(attributes["kernel_shape"])
    stem = f"{node.output[0]}_share"
    arrays: Constants = {
        f"{stem}_weight": np.full((channels, 1, *kernel), 127, np.int8),
        f"{stem}_scale": np.array(1.0 / (127 * prod(kernel)), np.float32),
        f"{stem}_zero": np.array(0, np.int8),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    kept: dict[str, Any] = {
        key: value for key, value in attributes.items() if key in ("strides", "pads", "kernel_shape", "dilations")
    }
    return [
        helper.make_node(_DQ, list(arrays), [stem], name=f"{stem}_dq"),
        helper.make_node("Conv", [node.input[0], stem], list(node.output), name=node.name, group=channels, **kept),
    ]


def _repeated(
    model: onnx.ModelProto, node: onnx.NodeProto, outputs: int, inputs: int, grid: tuple[str, str]
) -> list[onnx.NodeProto]:
    """A convolution of ones that repeats every channel for its outputs, on the grid of its input; rewires `node`."""
    stem = f"{node.output[0]}_repeat"
    ones = np.zeros((outputs, inputs, 1, 1), np.int8)
    ones[np.arange(outputs), np.arange(outputs) // (outputs // inputs)] = 1
    arrays: Constants = {
        f"{stem}_weight": ones,
        f"{stem}_scale": np.array(1, np.float32),
        f"{stem}_zero": np.array(0, np.int8),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    made = [
        helper.make_node(_DQ, list(arrays), [f"{stem}_ones"], name=f"{stem}_ones_dq"),
        helper.make_node("Conv", [node.input[0], f"{stem}_ones"], [stem], name=stem, kernel_shape=[1, 1]),
        *_quantisers(stem, f"{stem}_grid", grid),
    ]
    node.input[0] = f"{stem}_grid"
    return made


def _product(
    model: onnx.ModelProto, node: onnx.NodeProto, constants: Constants, grids: _Grids
) -> list[onnx.NodeProto] | None:
    source, read = grids.quantised(node.input[0]), grids.quantised(node.input[1])
    if source is None or read is None or not grids.is_dequantised(node.input[0]) or read.input[0] not in constants:
        return None
    weight, own = constants[read.input[0]], constants[read.input[1]]
    given = node.input[2] if len(node.input) > 2 else ""
    bias = constants.get(given)
    scale = constants[source.input[1]]
    if weight.dtype != np.int8 or 2 * len(weight) > weight.shape[1] or scale.size != 1 or (given and bias is None):
        return None
    stem = node.output[0]
    arrays: Constants = {
        f"{stem}_matrix": np.ascontiguousarray(weight[:, :, 0, 0].T),
        f"{stem}_factor": (scale.astype(np.float64) * own.astype(np.float64)).reshape(-1).astype(np.float32),
    }
    if bias is not None:
        arrays[f"{stem}_shift"] = bias
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    last, sums, floats, scaled, shifted = (f"{stem}_{part}" for part in ("last", "sums", "floats", "scaled", "shifted"))
    made = [
        helper.make_node("Transpose", [source.input[0]], [last], name=last, perm=[0, 2, 3, 1]),
        helper.make_node("MatMulInteger", [last, f"{stem}_matrix", source.input[2]], [sums], name=sums),
        helper.make_node("Cast", [sums], [floats], name=floats, to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [floats, f"{stem}_factor"], [scaled], name=scaled),
    ]
    if bias is not None:
        made.append(helper.make_node("Add", [scaled, f"{stem}_shift"], [shifted], name=shifted))
    end = made[-1].output[0]
    return [*made, helper.make_node("Transpose", [end], [stem], name=node.name, perm=[0, 3, 1, 2])]


def _is_pointwise(attributes: dict[str, object]) -> bool:
    steps = {*_integers(attributes.get("strides", ())), *_integers(attributes.get("kernel_shape", ()))}
    whole = attributes.get("group", 1) == 1 and not _is_padded(attributes)
    return whole and steps <= {1} and "kernel_shape" in attributes


def _set_attribute(node: onnx.NodeProto, name: str, value: int) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _counts_border(attributes: dict[str, object]) -> bool:
    counted = bool(attributes.get("count_include_pad")) or not _is_padded(attributes)
    return counted and not attributes.get("ceil_mode")


def _is_padded(attributes: dict[str, object]) -> bool:
    return any(_integers(attributes.get("pads", ()))) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET"


def _integers(values: object) -> tuple[int, ...]:
    return tuple(int(value) for value in values) if isinstance(values, Iterable) else ()


def _is_quantised(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> bool:
    """Whether all that reads a node's output, through a ReLU or clip, is a quantiser."""
    found = readers.get(node.output[0], [])
    if len(found) == 1 and found[0].op_type in ("Clip", "Relu"):
        found = readers.get(found[0].output[0], [])
    return bool(found) and all(reader.op_type == _Q for reader in found)


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _constants(model: onnx.ModelProto) -> Constants:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all values; 0 for an axis that is free."""
    graph = with_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return tidy(model)
