"""Quantised graphs: symmetric, the same numbers in every engine's writing, and undone operator by operator."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeseg.errors import ExportError
from edgeseg.export.precision.int8 import RECIPES, quantise
from edgeseg.export.precision.scoring import open_graph
from edgeseg.export.to_onnx import check_limits
from edgeseg.graph.qdq import (
    as_int8,
    check_symmetric,
    named,
    quantised_nodes,
    seven_bits,
    without_quantisers,
)
from edgeseg.graph.roles import grid_nodes, normalisation_nodes
from edgeseg.graph.run import run_graph
from edgeseg.runtimes.ort.passes.unsigned import UnsignedActivations
from tests.export.graphs import parse
from tests.export.precision.pictures import images, smooth, tiny_graph, write_pictures

Made = tuple[onnx.ModelProto, onnx.ModelProto]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A float graph and its quantised form."""
    model, _ = tiny_graph()
    pictures = images(write_pictures(tmp_path_factory.mktemp("calib"), 4))
    return model, quantise(model, pictures, recipe=RECIPES[0])


QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def _zero_points(model: onnx.ModelProto) -> list[NDArray[Any]]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [constants[node.input[2]] for node in model.graph.node if node.op_type in QUANTISERS]


def _logits(model: onnx.ModelProto, seed: int = 20) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = run_graph(model, {"image": smooth(seed)[None]})[0]
    return logits


def test_the_graph_keeps_every_limit(made: Made) -> None:
    _, quantised = made
    check_limits(quantised)
    check_symmetric(quantised)
    assert {node.domain for node in quantised.graph.node} == {""}
    assert max(entry.version for entry in quantised.opset_import) <= 18
    assert all(not zero.any() for zero in _zero_points(quantised))
    assert len(quantised_nodes(quantised)) == 2


def test_weights_have_a_scale_per_channel_and_activations_one(made: Made) -> None:
    _, quantised = made
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    readers = [node for node in quantised.graph.node if node.op_type == "DequantizeLinear"]
    scales = {node.input[0] in constants: constants[node.input[1]].shape for node in readers}
    assert scales[True] in ((8,), (5,))
    assert scales[False] == ()


def test_pixels_are_normalised_in_float(made: Made) -> None:
    model, quantised = made
    names = normalisation_nodes(model)
    assert names
    readers = {node.name: node for node in quantised.graph.node}
    assert not set(names) & set(quantised_nodes(quantised))
    assert set(names) <= readers.keys()


def test_it_is_near_the_float_graph(made: Made) -> None:
    model, quantised = made
    wanted, got = _logits(model), _logits(quantised)
    assert 0 < np.abs(got - wanted).max() <= 0.05 * np.ptp(wanted)


def test_the_engines_writings_hold_the_same_numbers(made: Made) -> None:
    _, quantised = made
    signed = as_int8(quantised)
    check_symmetric(signed)
    assert {zero.dtype for zero in _zero_points(signed)} == {np.dtype(np.int8)}
    assert np.array_equal(_logits(UnsignedActivations()(quantised).model), _logits(quantised))
    calm = {"image": (100 + smooth(20) // 8)[None]}  # within the calibrated ranges, beyond which int8 saturates
    assert np.array_equal(run_graph(signed, calm)[0], run_graph(quantised, calm)[0])


def test_onnx_runtime_runs_int8_kernels(made: Made, tmp_path: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    unsigned = UnsignedActivations()(made[1]).model
    ort.InferenceSession(unsigned.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "QLinearConv" in ops
    assert "Relu" not in ops


def test_an_operator_put_back_computes_in_float_again(made: Made) -> None:
    model, quantised = made
    names = quantised_nodes(quantised)
    half_way = without_quantisers(quantised, model, names[:1])
    onnx.checker.check_model(half_way)
    assert quantised_nodes(half_way) == names[1:]
    undone = without_quantisers(quantised, model, names)
    assert not quantised_nodes(undone)
    assert np.array_equal(_logits(undone), _logits(model))
    assert not any(node.op_type == "QuantizeLinear" for node in undone.graph.node)


_QUANTISER = """
g (float[1,3] x) => (float[1,3] y)
<float s = {0.5}, TYPE z = {POINT}> {
  q = QuantizeLinear (x, s, z)
  y = DequantizeLinear (q, s, z)
}
"""


def _quantiser(kind: str, point: int) -> onnx.ModelProto:
    return named(parse(_QUANTISER.replace("TYPE", kind).replace("POINT", str(point))))


def test_zero_points_are_refused() -> None:
    check_symmetric(_quantiser("int8", 0))
    with pytest.raises(ExportError, match="zero point of 3; TensorRT takes only 0"):
        check_symmetric(_quantiser("uint8", 3))


def test_scales_that_are_not_positive_are_refused() -> None:
    model = _quantiser("int8", 0)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(0.0, np.float32), "s"))
    with pytest.raises(ExportError, match="scale that is not positive"):
        check_symmetric(model)


def test_quantisers_need_constants() -> None:
    model = _quantiser("int8", 0)
    del model.graph.initializer[:]
    with pytest.raises(ExportError, match="no constant scale"):
        check_symmetric(model)


def test_uint8_reaches_what_int8_does() -> None:
    """Numbers up to 127 steps, so that TensorRT, which reads uint8 as int8, does not cut them off."""
    scaled = seven_bits(_quantiser("uint8", 0))
    scale = numpy_helper.to_array(next(t for t in scaled.graph.initializer if t.name == "s"))
    assert 127 * scale == pytest.approx(255 * 0.5, rel=1e-6)
    untouched = seven_bits(_quantiser("int8", 0))
    assert numpy_helper.to_array(next(t for t in untouched.graph.initializer if t.name == "s")) == 0.5


def test_a_graph_without_matrix_products_is_refused(tmp_path: Path) -> None:
    model = named(parse("g (uint8[1,32,48,3] image) => (float[1,32,48,3] logits) { logits = Cast <to = 1> (image) }"))
    with pytest.raises(ExportError, match="export it as fp32"):
        quantise(model, images(write_pictures(tmp_path / "c", 1)))


def test_coordinates_are_not_touched() -> None:
    model = named(
        parse(
            """g (float[1,2,4,4] image, float[1,4,4,2] f, float[1,4,4,2] b) => (float[1,2,4,4] logits) {
              grid = Add (f, b)
              logits = GridSample (image, grid)
            }"""
        )
    )
    assert grid_nodes(model) == ["Add_0"]


def test_a_judge_runs_any_batch(made: Made) -> None:
    run = open_graph(made[1])
    assert run(smooth(3)).shape == (5, 8, 12)


def test_quantising_leaves_standard_output_to_everybody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What another thread prints meanwhile arrives; NNCF's bars do not."""
    done = threading.Event()

    def talk() -> None:
        while not done.wait(0.01):
            print("another thread")

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        before = sys.stdout
        quantise(tiny_graph()[0], [smooth(seed) for seed in range(2)])
        assert sys.stdout is before
    finally:
        done.set()
        thread.join()
    assert set(capsys.readouterr().out.splitlines()) == {"another thread"}
