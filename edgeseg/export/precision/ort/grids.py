"""Quantisers where numbers lie on a grid already: they change no number, and the reader runs in int8."""

from __future__ import annotations

import onnx

from edgeseg.export.precision.ort._graph import QuantisedGraph, quantisers

__all__ = ["quantise_grids"]

_ACTIVATIONS = {"Add": 2, "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 2, "Mul": 2}
"""Operators with an int8 kernel, and how many of their inputs are activations."""


def quantise_grids(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put a quantiser where numbers that lie on a grid already are read by an operator with an int8 kernel."""
    graph = QuantisedGraph(model)
    quantised: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.model.graph.node:
        read = list(node.input[: _ACTIVATIONS.get(node.op_type, 0)])
        found = [graph.grid(name) for name in read]
        if all(found) and graph.is_quantised(node):
            for index, (name, grid) in enumerate(zip(read, found, strict=True)):
                if grid is None or graph.dequantiser(name) is not None:
                    continue
                node.input[index] = f"{name}_grid"
                if name not in quantised:
                    quantised.add(name)
                    nodes += quantisers(name, f"{name}_grid", grid)
        nodes.append(node)
    return graph.with_nodes(nodes)
