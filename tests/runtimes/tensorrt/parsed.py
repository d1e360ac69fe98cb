"""A network as TensorRT's parser made it of a graph, and the rules that graphs for NVIDIA's engines keep.

Each rule returns what breaks it, one sentence each. A parsed network is what the builder is given: what it says of
types holds for every GPU, whichever kernels the builder chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import onnx

__all__ = ["RULES", "Layer", "Parsed", "broken_rules", "parsed"]

CONVOLUTIONS = ("CONVOLUTION", "DECONVOLUTION")
_PASSES_ON = ("CONCATENATION", "POOLING", "SHUFFLE", "SLICE", "ACTIVATION", "IDENTITY", "PADDING", "GATHER")


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: That of the ONNX node it was made of, or a name of the parser's own.
        kind: ``LayerType``.
        inputs: Names of the tensors it reads.
        outputs: Names of the tensors it gives.
        types: ``DataType`` of those, in order.
        shapes: Of those, in order.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Parsed:
    """A parsed network.

    Attributes:
        layers: In order.
        types: Tensor -> ``DataType``.
        inputs: Of the network, and their shapes.
        outputs: Of the network.
        kept: Operators that are marked to stay fp32.
    """

    layers: tuple[Layer, ...]
    types: Mapping[str, str]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    kept: Collection[str] = ()

    def producer(self, tensor: str) -> Layer | None:
        """The layer that gives a tensor."""
        return next((layer for layer in self.layers if tensor in layer.outputs), None)

    def readers(self, tensor: str) -> list[Layer]:
        """The layers that read a tensor."""
        return [layer for layer in self.layers if tensor in layer.inputs]

    def kind_of(self, tensor: str) -> str:
        """Kind of the layer that gives a tensor; empty for an input of the network."""
        layer = self.producer(tensor)
        return "" if layer is None else layer.kind


def parsed(module: ModuleType, model: onnx.ModelProto, kept: Collection[str] = ()) -> Parsed:
    """Parse a graph, strongly typed.

    Raises:
        ValueError: The parser refuses it.
    """
    from edgeseg.runtimes.tensorrt.build import errors_logged, logger_of

    logger = logger_of(module)
    builder = module.Builder(logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        raise ValueError(f"the parser refuses the graph: {errors_logged(logger)}")
    layers = tuple(_layer(network.get_layer(index)) for index in range(network.num_layers))
    ends = [
        [get(index) for index in range(count)]
        for get, count in ((network.get_input, network.num_inputs), (network.get_output, network.num_outputs))
    ]
    types = {name: kind for layer in layers for name, kind in zip(layer.outputs, layer.types, strict=True)}
    types |= {tensor.name: tensor.dtype.name for tensor in ends[0]}
    inputs, outputs = {tensor.name: tuple(tensor.shape) for tensor in ends[0]}, tuple(tensor.name for tensor in ends[1])
    return Parsed(layers, types, inputs, outputs, kept)


def _layer(layer: Any) -> Layer:
    given = [layer.get_input(index) for index in range(layer.num_inputs)]
    made = [layer.get_output(index) for index in range(layer.num_outputs)]
    return Layer(
        layer.name,
        layer.type.name,
        tuple(tensor.name for tensor in given if tensor is not None),
        tuple(tensor.name for tensor in made),
        tuple(tensor.dtype.name for tensor in made),
        tuple(tuple(tensor.shape) for tensor in made),
    )


def input_is_cast_first(network: Parsed, precision: str) -> list[str]:
    """Nothing reads the picture but a cast; one to half, where the graph is."""
    wanted = "FLOAT" if precision == "fp32" else "HALF"
    return [
        f"{layer.name} reads the picture: {layer.kind} to {layer.types[0]}, not a cast to {wanted}"
        for name in network.inputs
        for layer in network.readers(name)
        if layer.kind != "CAST" or layer.types[0] != wanted
    ]


def convolutions_are_half(network: Parsed, precision: str) -> list[str]:
    """No convolution computes in fp32, but those that are marked to."""
    if precision == "fp32":
        return []
    return [
        f"{layer.name} is {layer.kind} in fp32 and not marked to be"
        for layer in network.layers
        if layer.kind in CONVOLUTIONS and layer.types[0] == "FLOAT" and layer.name not in network.kept
    ]


def int8_on_both_sides(network: Parsed, precision: str) -> list[str]:
    """A convolution that reads int8 weights reads an int8 map, and the other way round."""
    if precision != "int8":
        return []
    broken = []
    for layer in network.layers:
        if layer.kind in CONVOLUTIONS and len(layer.inputs) > 1:
            kinds = [network.kind_of(name) for name in layer.inputs[:2]]
            if kinds.count("DEQUANTIZE") == 1:
                broken.append(f"{layer.name} reads {kinds[0]} and weights of {kinds[1]}")
    return broken


def quantisers_serve(network: Parsed, precision: str) -> list[str]:
    """Every quantised map goes into a convolution, perhaps by way of what hands it on, or into a sum with one."""
    if precision != "int8":
        return []
    return [
        f"{layer.name} quantises for no convolution"
        for layer in network.layers
        if layer.kind == "QUANTIZE" and not _serves(network, layer.outputs[0])
    ]


def _serves(network: Parsed, tensor: str) -> bool:
    for reader in network.readers(tensor):
        if reader.kind in CONVOLUTIONS or reader.kind == "QUANTIZE":
            return True
        if reader.kind == "ELEMENTWISE" and any(network.kind_of(name) in CONVOLUTIONS for name in reader.inputs):
            return True
        if reader.kind in ("DEQUANTIZE", *_PASSES_ON) and any(_serves(network, out) for out in reader.outputs):
            return True
    return False


def ends_in_logits(network: Parsed, precision: str) -> list[str]:
    """No labels are made in the graph: it ends in no choice, no resize to the picture's size and no integers."""
    broken = []
    sizes = {shape[1:3] for shape in network.inputs.values()}
    for name in network.outputs:
        layer = network.producer(name)
        while layer is not None and layer.kind in ("CAST", "IDENTITY", "SHUFFLE"):
            layer = network.producer(layer.inputs[0])
        kind = "nothing" if layer is None else layer.kind
        whole = layer is not None and kind == "RESIZE" and layer.shapes[0][2:] in sizes
        if whole or kind in ("TOPK", "nothing") or network.types[name] not in ("FLOAT", "HALF"):
            broken.append(f"the output {name} is {network.types[name]} of {kind}")
    return broken


def logits_are_half(network: Parsed, precision: str) -> list[str]:
    """Logits are half where the graph is, but where what computes them is marked to stay fp32."""
    broken = []
    for name in network.outputs:
        layer = network.producer(name)
        kept = layer is not None and layer.name in network.kept
        wanted = "FLOAT" if precision == "fp32" or kept else "HALF"
        if network.types[name] != wanted:
            broken.append(f"the output {name} is {network.types[name]}, not {wanted}")
    return broken


Rule = Callable[[Parsed, str], list[str]]
RULES: tuple[Rule, ...] = (
    input_is_cast_first,
    convolutions_are_half,
    int8_on_both_sides,
    quantisers_serve,
    ends_in_logits,
    logits_are_half,
)


def broken_rules(network: Parsed, precision: str) -> dict[str, list[str]]:
    """Rule -> what breaks it; rules that hold are left out."""
    found = {rule.__name__: rule(network, precision) for rule in RULES}
    return {name: sentences for name, sentences in found.items() if sentences}
