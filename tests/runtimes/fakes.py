"""Stand-ins for a GPU: a CUDA driver compiled from ``fake_cuda.c``, and a ``tensorrt`` module that runs ONNX Runtime.

Together they drive the whole path from a picture to the outputs through real pointers, and write down every call.
"""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

__all__ = ["FakeTensorRT", "fake_tensorrt"]

PLAN = b"FAKEPLAN"


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8 = range(6)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class BuilderFlag(enum.IntEnum):
    FP16, INT8, TF32 = 0, 1, 7


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class Flags10(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = 0, 1


class Flags8(enum.IntEnum):
    EXPLICIT_BATCH = 0


class ILogger:
    """Base of the loggers; TensorRT's own has nothing that is read here."""


@dataclass
class FakeTensorRT:
    """What the fake module was asked, and what it shall refuse.

    Attributes:
        calls: Names of the calls in order.
        flags: Builder flags after the last configuration.
        network_flags: As given to create_network.
        profiles: Shapes given to set_shape.
        refuse: Of ``parse``, ``build``, ``deserialize``, ``execute``.
        logger: The logger of the last builder or runtime.
    """

    calls: list[str] = field(default_factory=list)
    flags: set[int] = field(default_factory=set)
    network_flags: int = -1
    profiles: list[tuple[Any, ...]] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    logger: Any = None

    def note(self, call: str) -> bool:
        self.calls.append(call)
        refused = call in self.refuse
        if refused:
            self.logger.log(Severity.ERROR, f"fake refusal in {call}")
        return not refused


def fake_tensorrt(*, version: str = "10.3.0", name: str = "tensorrt") -> tuple[Any, FakeTensorRT]:
    """A module with the part of TensorRT's API that edgeseg uses, and its record."""
    record = FakeTensorRT()
    module: Any = ModuleType(name)
    module.__version__, module.__file__ = version, __file__
    module.ILogger, module.BuilderFlag, module.DataType = ILogger, BuilderFlag, DataType
    module.NetworkDefinitionCreationFlag = Flags8 if version.startswith("8") else Flags10
    module.MemoryPoolType = MemoryPoolType
    module.Builder = lambda logger: _Builder(record, logger)
    module.OnnxParser = lambda network, logger: _Parser(record, network)
    module.Runtime = lambda logger: _Runtime(record, logger)
    return module, record


class _Network:
    model = b""

    def get_input(self, index: int) -> Any:
        found: Any = onnx.load_from_string(self.model).graph.input[index]
        return found


class _Config:
    def __init__(self, record: FakeTensorRT) -> None:
        self.record = record
        record.flags = {int(BuilderFlag.TF32)}

    def clear_flag(self, flag: int) -> None:
        self.record.flags.discard(int(flag))

    def set_flag(self, flag: int) -> None:
        self.record.flags.add(int(flag))

    def add_optimization_profile(self, profile: object) -> None:
        self.record.note("add_optimization_profile")


class _Profile:
    def __init__(self, record: FakeTensorRT) -> None:
        self.record = record

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.record.profiles.append((name, *shapes))


class _Builder:
    def __init__(self, record: FakeTensorRT, logger: object) -> None:
        self.record = record
        record.logger = logger

    def create_network(self, flags: int) -> _Network:
        self.record.network_flags = flags
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config(self.record)

    def create_optimization_profile(self) -> _Profile:
        return _Profile(self.record)

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        return PLAN + network.model if self.record.note("build") else None


class _ParserError:
    def node(self) -> int:
        return 3

    def node_name(self) -> str:
        return "conv_3"

    def node_operator(self) -> str:
        return "Conv"

    def desc(self) -> str:
        return "Assertion failed:\n no such kernel"


class _Parser:
    num_errors = 1

    def __init__(self, record: FakeTensorRT, network: _Network) -> None:
        self.record, self.network = record, network

    def parse(self, model: bytes, path: str) -> bool:
        self.network.model = model
        return self.record.note("parse")

    def get_error(self, index: int) -> _ParserError:
        return _ParserError()


class _Runtime:
    def __init__(self, record: FakeTensorRT, logger: object) -> None:
        self.record = record
        record.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        good = self.record.note("deserialize")
        return _Engine(self.record, plan[len(PLAN) :]) if good and plan.startswith(PLAN) else None


class _Engine:
    def __init__(self, record: FakeTensorRT, model: bytes) -> None:
        self.record = record
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return str(self.nodes[index].name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        node = next(node for node in self.nodes if node.name == name)
        return tuple(size if isinstance(size, int) else -1 for size in node.shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT if name == "logits" else DataType.UINT8

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 8, 8, 3), (1, 32, 48, 3), (1, 64, 96, 3)]

    def create_execution_context(self) -> _Context:
        self.record.note("create_execution_context")
        return _Context(self.record, self)


class _Context:
    def __init__(self, record: FakeTensorRT, engine: _Engine) -> None:
        self.record, self.engine = record, engine
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.record.note("set_input_shape")
        if max(shape[1], shape[2]) > 96:
            return False
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch, height, width, _ = self.shape
        if name == "logits":
            return (batch, int(self.engine.get_tensor_shape(name)[1]), -(-height // 8), -(-width // 8))
        return self.shape if name == "image" else (batch, height, width)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.record.note(f"set_tensor_address {name}")
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        if not self.record.note("execute") or not stream:
            return False
        size = int(np.prod(self.shape))
        raw = ctypes.string_at(self.addresses["image"], size)
        image = np.frombuffer(raw, np.uint8).reshape(self.shape)
        names = [node.name for node in self.engine.session.get_outputs()]
        for name, value in zip(names, self.engine.session.run(names, {"image": image}), strict=True):
            data = np.asarray(value).tobytes()
            ctypes.memmove(self.addresses[name], data, len(data))
        return True
