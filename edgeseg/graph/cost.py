"""Price nodes: multiply-accumulates, bytes moved, and a roofline estimate that decides between two forms.

The estimate only ever compares two ways to compute the same numbers, so ratios matter: seconds = multiply-accumulates /
peak + bytes / bandwidth + a fixed price per node (S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful
visual performance model for multicore architectures", Communications of the ACM, 2009; the sum instead of the maximum,
since engines rarely overlap the two within a node).

Peak, bandwidth and price per node are the machine's. They come from a `MachineProfile`, which each function takes as
its last argument. Where none is given it is `active_profile`: the one of the enclosing ``with using_profile(...)``, and
`DEFAULT_PROFILE` outside of any. The export enters that block once around all passes: prices are asked for deep inside
the passes, and an argument through every one of their functions would be there for this alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import onnx
import onnx_ir as ir

from edgeseg.graph.profile import MachineProfile, active_profile

__all__ = [
    "ZERO",
    "Cost",
    "cost_of",
    "graph_cost",
    "node_cost",
    "numel",
    "static_shape",
    "with_shapes",
]

_SHAPE_NUMBERS = 1024
"""Constants up to this size may say a shape; larger ones are not needed for inference."""

_FREE = {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
_SELECT = {"Expand", "Gather", "GatherElements", "GatherND", "Slice", "Split"}
_CHEAP = {"Abs", "Add", "Cast", "Clip", "Concat", "Mul", "Neg", "Pad", "Relu", "Sub", "Transpose"} | _SELECT


@dataclass(frozen=True)
class Cost:
    """What nodes cost.

    Attributes:
        nodes: How many.
        macs: Multiply-accumulates of convolutions and matrix products.
        bytes: Read and written by every node, weights included.
        seconds: The roofline estimate.
    """

    nodes: int = 0
    macs: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.nodes + other.nodes,
            self.macs + other.macs,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
        )

    def cheaper_than(self, other: Cost, *, margin: float = 0.0) -> bool:
        """Tell whether this is faster than `other` by more than `margin` seconds, by the estimate."""
        return self.seconds + margin < other.seconds


ZERO = Cost()


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the value's shape where every dimension is a known number, else None."""
    if value is None or value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else None for dim in value.shape]
    return None if None in dims else tuple(dim for dim in dims if dim is not None)


def numel(value: ir.Value | None) -> int:
    """Count the elements of the value; 0 where its shape is not known."""
    shape = static_shape(value)
    return 0 if shape is None else prod(shape)


def node_cost(node: ir.Node, profile: MachineProfile | None = None) -> Cost:
    """Price one node; parts whose shapes are not known count as nothing.

    Args:
        node: With the shapes of its inputs and outputs.
        profile: Of the machine; None is `active_profile`.
    """
    if node.op_type in ("Constant", "Identity"):
        return ZERO
    machine = profile or active_profile()
    macs, work = _macs(node), _work(node, machine)
    moved = 0 if node.op_type in _FREE else _bytes(node)
    return Cost(1, macs, moved, work + moved / machine.bandwidth + machine.node_seconds)


def cost_of(nodes: Iterable[ir.Node], profile: MachineProfile | None = None) -> Cost:
    """Price several nodes together."""
    machine = profile or active_profile()
    return sum((node_cost(node, machine) for node in nodes), ZERO)


def graph_cost(model: onnx.ModelProto, profile: MachineProfile | None = None) -> Cost:
    """Price a whole graph by its inferred shapes; nodes count as in the file, `Constant` included."""
    cost = cost_of(ir.serde.deserialize_model(with_shapes(model)).graph, profile)
    return Cost(len(model.graph.node), cost.macs, cost.bytes, cost.seconds)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the graph with inferred shapes of all values; large constants become inputs without numbers.

    Shapes that inner values already had are left out: a rewrite may have made them wrong.
    """
    shell = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = shell.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    named = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= _SHAPE_NUMBERS:
            graph.initializer.append(tensor)
        elif tensor.name not in named:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return onnx.shape_inference.infer_shapes(shell, data_prop=True)


def _bytes(node: ir.Node) -> int:
    written = sum(_size(value) for value in node.outputs)
    if node.op_type in _SELECT:
        return 2 * written
    return written + sum(_size(value) for value in node.inputs)


def _size(value: ir.Value | None) -> int:
    if value is None:
        return 0
    width = 4 if value.dtype is None else value.dtype.bitwidth / 8
    return int(numel(value) * width)


def _macs(node: ir.Node) -> int:
    count = _MACS.get(node.op_type)
    return 0 if count is None else count(node)


def _conv_macs(node: ir.Node) -> int:
    """Multiply output elements by input channels of a group and taps."""
    weight = static_shape(node.inputs[1])
    return 0 if weight is None else numel(node.outputs[0]) * prod(weight[1:])


def _deconv_macs(node: ir.Node) -> int:
    """Multiply input elements by output channels of a group and taps."""
    weight = static_shape(node.inputs[1])
    return 0 if weight is None else numel(node.inputs[0]) * prod(weight[1:])


def _matmul_macs(node: ir.Node) -> int:
    shape = static_shape(node.inputs[0])
    if not shape:
        return 0
    inner = shape[0] if node.op_type == "Gemm" and _int(node, "transA", 0) else shape[-1]
    return numel(node.outputs[0]) * inner


_MACS: dict[str, Callable[[ir.Node], int]] = {
    "Conv": _conv_macs,
    "ConvTranspose": _deconv_macs,
    "Gemm": _matmul_macs,
    "MatMul": _matmul_macs,
}


def _work(node: ir.Node, machine: MachineProfile) -> float:
    """Estimate the seconds of arithmetic."""
    if node.op_type in _FREE or node.op_type in _CHEAP:
        return 0.0
    if node.op_type in _MACS:
        return _macs(node) / (machine.channelwise if _is_thin(node) else machine.dense)
    if node.op_type == "Resize":
        return _resize_taps(node) * numel(node.outputs[0]) / machine.interpolation
    if node.op_type in ("AveragePool", "MaxPool"):
        return numel(node.outputs[0]) * prod(_ints(node, "kernel_shape")) / machine.channelwise
    return max(numel(node.inputs[0]) if node.inputs else 0, numel(node.outputs[0])) / machine.channelwise


def _is_thin(node: ir.Node) -> bool:
    """Tell whether a convolution's groups are too narrow for the dense rate."""
    weight = static_shape(node.inputs[1])
    return weight is not None and _int(node, "group", 1) > 1 and weight[1] < 8


def _resize_taps(node: ir.Node) -> int:
    attribute = node.attributes.get("mode")
    mode = "nearest" if attribute is None else attribute.as_string()
    return {"nearest": 1, "linear": 4}.get(mode, 16)


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _ints(node: ir.Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return () if attribute is None else tuple(attribute.as_ints())
