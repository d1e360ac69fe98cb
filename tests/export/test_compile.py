"""What targets need besides ``model.onnx`` is asked of their records."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from edgeseg.errors import TargetUnavailableError
from edgeseg.export.compile import require_packages, write_target
from edgeseg.runtimes import Engine, engines
from tests.runtimes.bundles import make_tiny_bundle, tiny_network


@pytest.mark.parametrize(
    ("target", "modules", "extra"),
    [
        ("openvino", ("openvino",), "openvino"),
        ("trt-rtx", ("tensorrt_rtx", "tensorrt_rtx_bindings"), "tensorrt-rtx"),
        ("torch", ("safetensors",), "export"),
    ],
)
def test_a_compiler_that_is_missing_is_told_before_the_work(
    target: str, modules: tuple[str, ...], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TargetUnavailableError, match=rf"{target} target needs .* pip install 'edgeseg\[{extra}\]'"):
        require_packages(("ort", target))
    require_packages(tuple(record.name for record in engines() if record.name in ("ort", "trt")))


def test_each_target_writes_into_a_folder_of_its_own(tmp_path: Path, toy_engine: Engine) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    graph = onnx.load(bundle.path / "model.onnx")
    before = set(bundle.path.rglob("*"))
    for target in ("ort", "trt"):
        write_target(target, bundle.path, graph, bundle.manifest, tiny_network(), tiny_network())
    assert set(bundle.path.rglob("*")) == before
    for target, file in (("torch", "torch/weights.safetensors"), (toy_engine.name, "toy/graph.onnx")):
        write_target(target, bundle.path, graph, bundle.manifest, tiny_network(), tiny_network())
        made = [path for path in bundle.path.rglob("*") if path.is_file() and path not in before]
        assert made == [bundle.path / file]
        before |= set(bundle.path.rglob("*"))
