"""Quantisers where numbers lie on a grid already: they change no number, and the reader runs in int8."""

from __future__ import annotations

import onnx

from edgeseg.export.precision.ort._graph import Grids, is_quantised, quantisers, readers_of, with_nodes
from edgeseg.export.precision.qdq import copied

__all__ = ["quantise_grids"]

_ACTIVATIONS = {"Add": 2, "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 2, "Mul": 2}
"""Operators with an int8 kernel, and how many of their inputs are activations."""


def quantise_grids(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put a quantiser where numbers that lie on a grid already are read by an operator with an int8 kernel."""
    copy = copied(model)
    grids, readers = Grids(copy), readers_of(copy)
    quantised: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        read = list(node.input[: _ACTIVATIONS.get(node.op_type, 0)])
        found = [grids.of(name) for name in read]
        if all(found) and is_quantised(node, readers):
            for index, (name, grid) in enumerate(zip(read, found, strict=True)):
                if grid is None or grids.is_dequantised(name):
                    continue
                node.input[index] = f"{name}_grid"
                if name not in quantised:
                    quantised.add(name)
                    nodes += quantisers(name, f"{name}_grid", grid)
        nodes.append(node)
    return with_nodes(copy, nodes)
