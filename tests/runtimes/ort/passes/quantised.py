"""Small quantised graphs whose scales are powers of two: sums are exact in float32, in any order."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.graph.passes import Pass
from edgeseg.graph.passes._base import apply_passes
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes import INT8_PASSES
from tests.graph.passes.tools import build, kinds

__all__ = [
    "SCALE",
    "constants",
    "convolution",
    "formed",
    "kernels",
    "numbers",
    "overflows",
    "quantised",
    "rewritten_by",
    "weights_of",
]

SCALE, ZERO = np.array(0.0625, np.float32), np.array(128, np.uint8)


def formed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A quantised graph after every pass for ONNX Runtime, without proof."""
    return apply_passes(model, [step() for step in INT8_PASSES])


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    """Seeded normal numbers, most of them within the scale."""
    return np.random.default_rng(seed).normal(0.0, 2.0, shape).astype(np.float32)


def quantised(name: str, out: str) -> str:
    """Text of a quantiser and a dequantiser."""
    return f"{out}_q = QuantizeLinear({name}, s, z) {out} = DequantizeLinear({out}_q, s, z)"


def constants(
    outputs: int, inputs: int, kernel: Sequence[int] = (1, 1), *, stem: str = "w", seed: int = 1, own: bool = True
) -> dict[str, NDArray[Any]]:
    """Weights, and the scale and zero point of what is read and written."""
    rng = np.random.default_rng(seed)
    shape = (outputs,) if own else ()
    return {
        "s": SCALE,
        "z": ZERO,
        f"{stem}_q": rng.integers(-127, 128, (outputs, inputs, *kernel)).astype(np.int8),
        f"{stem}_s": (2.0 ** -rng.integers(9, 12, shape)).astype(np.float32),
        f"{stem}_z": np.zeros(shape, np.int8),
    }


def convolution(
    shape: tuple[int, int, int, int],
    outputs: int,
    kernel: tuple[int, int],
    *,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    group: int = 1,
    end: str = "",
    own: bool = True,
    bias: bool = True,
    width: str = "",
) -> onnx.ModelProto:
    """``x`` quantised, convolved, perhaps cut off, quantised to ``r``; a `Sigmoid` at the end leaves it float."""
    postprocess = {
        "": f"{quantised('c', 'r')}",
        "Relu": f"d = Relu(c) {quantised('d', 'r')}",
        "Clip": f"d = Clip(c, low, high) {quantised('d', 'r')}",
        "Sigmoid": "r = Sigmoid(c)",
    }[end]
    held = constants(outputs, shape[1] // group, kernel, own=own)
    if end == "Clip":
        held |= {"low": np.array(0, np.float32), "high": np.array(3, np.float32)}
    if bias:
        held["b"] = np.random.default_rng(2).integers(-64, 64, outputs).astype(np.float32) / 64
    size = [
        (side + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, side in enumerate(shape[2:])
    ]
    body = (
        f"{quantised('x', 'a')} w = DequantizeLinear{'<axis=0>' if own else ''}(w_q, w_s, w_z) "
        f"c = Conv<kernel_shape={list(kernel)}, strides={list(strides)}, pads={list(pads)}, "
        f"dilations={list(dilations)}, group={group}>(a, w{', b' if bias else ''}) {postprocess}"
    )
    given = f"{shape[0]},{shape[1]},{shape[2]},{width or shape[3]}"
    model = build(f"g (float[{given}] x) => (float[1,{outputs},{size[0]},{width or size[1]}] r) {{ {body} }}", **held)
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}"
    return model


def kernels(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Operators as ONNX Runtime really runs them."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return kinds(onnx.load(folder / "optimised.onnx"))


def rewritten_by(kind: type[Pass], model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph after a pass, which left the one it was given as it was, and told whether it did something."""
    given = model.SerializeToString()
    result = kind()(model)
    assert model.SerializeToString() == given
    assert result.modified == (result.model is not model)
    onnx.checker.check_model(result.model)
    assert list(result.model.graph.output) == list(model.graph.output)
    return result.model


def weights_of(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Shapes of the weights that convolutions read, in order."""
    held = {tensor.name: numpy_helper.to_array(tensor).shape for tensor in model.graph.initializer}
    made = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [held[made.get(node.input[1], node.input[1])] for node in model.graph.node if node.op_type == "Conv"]


@functools.cache
def overflows() -> bool:
    """Whether ONNX Runtime's products of integers overflow here, as on x86 processors without VNNI."""
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, (1, 64))
    b = numpy_helper.from_array(np.full((64, 1), 127, np.int8), "b")
    y = helper.make_tensor_value_info("y", TensorProto.INT32, (1, 1))
    graph = helper.make_graph([node], "product", [a], [y], [b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return int(run_graph(model, {"a": np.full((1, 64), 255, np.uint8)})[0].item()) != 255 * 127 * 64
