"""What an export proves of a target that the machine cannot run."""

from __future__ import annotations

import sys
from dataclasses import replace

import onnx
import pytest
from onnx import helper

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.export.bundle_files import hashed
from edgeseg.export.compile import save_onnx
from edgeseg.export.deploy import DeployNetwork
from edgeseg.export.reference import ParitySet, parity_set, shipped_sample
from edgeseg.export.verify import verify_target
from tests.export.networks import Tiny

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def _no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the engines, whatever this one has."""
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return edgeseg.export_model(Tiny(), size=SIZE, targets=("trt",), out=tmp_path_factory.mktemp("verify")).bundle


@pytest.fixture(scope="module")
def expected(exported: Bundle) -> ParitySet:
    manifest = exported.manifest
    network = DeployNetwork(Tiny().eval(), manifest.input)
    return parity_set(network, SIZE, manifest.resize, manifest.postprocess, [shipped_sample()])


def _with_own_graph(bundle: Bundle, factor: float) -> Bundle:
    """The bundle with the network's logits times a factor in the graph for GPUs."""
    model = onnx.load(bundle.path / "model.onnx")
    graph = model.graph
    graph.output[0].name = "scaled"
    graph.initializer.append(helper.make_tensor("by", onnx.TensorProto.FLOAT, [], [factor]))
    graph.node.append(helper.make_node("Mul", ["logits", "by"], ["scaled"]))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [{"logits": "before", "scaled": "logits"}.get(name, name) for name in names]
    graph.output[0].name = "logits"
    save_onnx(model, bundle.path / "tensorrt" / "model.onnx")
    return Bundle(bundle.path, replace(bundle.manifest, files=hashed(bundle.path)))


def test_without_a_gpu_the_graph_is_run_instead_and_said(exported: Bundle, expected: ParitySet) -> None:
    for target in ("trt", "trt-rtx"):
        found = verify_target(target, exported, expected)
        assert (found.ran, found.images, found.pixels) == (False, 3, 3 * SIZE[0] * SIZE[1])
        assert found.differing <= 1
        assert "needs a GPU and was not run" in found.engine


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (-1.0, False)])
def test_the_graph_that_is_proven_is_the_one_that_the_engine_is_built_from(
    exported: Bundle, expected: ParitySet, factor: float, right: bool
) -> None:
    bundle = _with_own_graph(exported, factor)
    found = verify_target("trt", bundle, expected)
    assert (found.agreement > 0.999) is right
    assert (found.max_logit_error < 1e-4 * found.logit_range) is right
    assert verify_target("ort", bundle, expected).differing <= 1
