"""What edgeseg touches of TensorRT's package is there: held to TensorRT-RTX, whose API is that of TensorRT 11."""

from __future__ import annotations

from typing import Any

import pytest

from edgeseg.runtimes.tensorrt import _api
from edgeseg.runtimes.tensorrt.environment import _DIAGNOSTICS
from tests.runtimes.fakes import fake_tensorrt

NAMES = {
    "Builder": "Builder",
    "BuilderConfig": "IBuilderConfig",
    "CudaEngine": "ICudaEngine",
    "ExecutionContext": "IExecutionContext",
    "Network": "INetworkDefinition",
    "OnnxParser": "OnnxParser",
    "ParserError": "ParserError",
    "Runtime": "Runtime",
}
"""Protocol of `_api` -> class of the package."""

OF_THE_MODULE = (
    *("Builder", "OnnxParser", "Runtime", "ILogger", "BuilderFlag", "MemoryPoolType", "NetworkDefinitionCreationFlag"),
    *("ComputeCapability", "EngineInvalidityDiagnostics"),
)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx_bindings")


def members(protocol: type) -> set[str]:
    """Attributes and methods that a protocol names."""
    return {name for name in {*vars(protocol), *protocol.__annotations__} if not name.startswith("_")}


def test_every_protocol_is_held_to_a_class() -> None:
    assert {name for name in _api.__all__ if name != "Severity"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_attribute_is_there(rtx: Any, name: str) -> None:
    wanted = members(getattr(_api, name))
    assert wanted
    assert wanted - set(dir(getattr(rtx, NAMES[name]))) == set()


def test_the_module_has_what_is_taken_of_it(rtx: Any) -> None:
    assert set(OF_THE_MODULE) - set(dir(rtx)) == set()
    assert hasattr(rtx.BuilderFlag, "TF32")
    assert hasattr(rtx.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    assert hasattr(rtx.MemoryPoolType, "WORKSPACE")
    assert set(_DIAGNOSTICS) <= set(rtx.EngineInvalidityDiagnostics.__members__)
    assert {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"} <= set(rtx.ILogger.Severity.__members__)


def test_the_stand_in_has_the_names_of_the_real_one(rtx: Any) -> None:
    module, _ = fake_tensorrt(version="11.1.0", name="tensorrt_rtx_bindings")
    for name in ("BuilderFlag", "NetworkDefinitionCreationFlag", "EngineInvalidityDiagnostics", "MemoryPoolType"):
        assert set(getattr(module, name).__members__) <= set(getattr(rtx, name).__members__), name
