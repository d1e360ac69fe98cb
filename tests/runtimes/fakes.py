"""Stand-ins for a GPU: a CUDA driver compiled from ``fake_cuda.c``, and a ``tensorrt`` module that runs ONNX Runtime.

Together they drive the whole path from a picture to the outputs through real pointers, and write down every call. Both
are strict: the module wants a current context where TensorRT does, and memory with room for the whole tensor.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

__all__ = ["FakeTensorRT", "fake_tensorrt"]

PLAN, DETAILED = b"FAKEPLAN", b"DETAILED"
"""How a plan begins, and one that tells of its layers."""

TIMINGS, KERNELS = b"TIMINGS", b"KERNELS"

RUN_MS = 1.5
"""What a run takes on the fake GPU's clock."""


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8 = range(6)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class BuilderFlag(enum.IntEnum):
    FP16, INT8, TF32 = 0, 1, 7


class BuilderFlag11(enum.IntEnum):
    TF32 = 6


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class Flags10(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = 0, 1


class Flags11(enum.IntEnum):
    STRONGLY_TYPED = 1


class FlagsRtx(enum.IntEnum):
    STRONGLY_TYPED = 0


class ComputeCapability(enum.IntEnum):
    NONE, CURRENT = 0, 1
    SM75, SM80, SM86, SM87, SM89, SM120 = 75, 80, 86, 87, 89, 120


class EngineInvalidityDiagnostics(enum.IntEnum):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, OLD_CUDA_RUNTIME = 1, 2, 4, 8
    INSUFFICIENT_GPU_MEMORY, MALFORMED_ENGINE, CUDA_ERROR = 16, 32, 64


class IProfiler:
    """Base of the profilers."""


class EngineInspector:
    """What the inspector is asked for; the package's own class is only looked for."""


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
        refuse: Of ``parse``, ``build``, ``deserialize``, ``execute``, ``set_tensor_address``,
            ``create_execution_context``, and ``Builder`` and ``Runtime``, which then raise as pybind11 does.
        words: What is logged with a refusal.
        diagnostics: What ``get_engine_validity`` finds; None for a package without it.
        driver: The fake driver, which knows contexts and memory.
        poison: Put into the first logit of every run.
        logger: The logger of the last builder or runtime.
        levels: Of the builder, per build.
        kernels: What each context of TensorRT-RTX had of its runtime cache; empty where it had to make its kernels.
        strategies: For CUDA graphs, per context of TensorRT-RTX.
        waits: Whether engines wait for their stream, so that they cannot be captured.
        stale: Captured runs that were started although their context had other shapes or memory by then.
        runs: What each started run does when its turn comes.
        numbers: Of runs.
    """

    calls: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    network_flags: int = -1
    profiles: list[tuple[Any, ...]] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    words: str = ""
    workspaces: list[int] = field(default_factory=list)
    diagnostics: int | None = None
    driver: Any = None
    poison: float | None = None
    logger: Any = None
    levels: list[int] = field(default_factory=list)
    kernels: list[bytes] = field(default_factory=list)
    strategies: list[Any] = field(default_factory=list)
    waits: bool = False
    stale: int = 0
    runs: dict[int, Callable[[], None]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: self.runs[number]())
        if self.driver is not None:
            self.driver.fake_host.restype = ctypes.c_uint64

    def note(self, call: str) -> bool:
        self.calls.append(call)
        refused = call in self.refuse
        if refused:
            self.logger.log(Severity.ERROR, self.words or f"fake refusal in {call}")
        return not refused

    def start(self, what: str, logger: Any) -> None:
        """Take the logger of a builder or runtime; raise as pybind11 does where it is refused."""
        self.logger = logger
        if what in self.refuse:
            logger.log(Severity.ERROR, self.words or f"fake refusal in {what}")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def needs_context(self, call: str) -> bool:
        """Whether there is a current context, as every call on the GPU wants."""
        current = self.driver is None or self.driver.fake_current() != 0
        if not current:
            self.logger.log(Severity.ERROR, f"{call} without a current context")
        return current


def fake_tensorrt(
    *, version: str = "10.3.0", name: str = "tensorrt", driver: ctypes.CDLL | None = None
) -> tuple[Any, FakeTensorRT]:
    """A module with the part of TensorRT's API that edgeseg uses, and its record; enums as that version has them."""
    record = FakeTensorRT(driver=driver)
    module: Any = ModuleType(name)
    module.__version__, module.__file__ = version, __file__
    module.ILogger, module.DataType, module.MemoryPoolType = ILogger, DataType, MemoryPoolType
    rtx, newest = "rtx" in name, version.startswith("11")
    module.ProfilingVerbosity, module.LayerInformationFormat = ProfilingVerbosity, LayerInformationFormat
    module.IProfiler, module.EngineInspector = IProfiler, EngineInspector
    module.BuilderFlag = BuilderFlag11 if rtx or newest else BuilderFlag
    module.NetworkDefinitionCreationFlag = FlagsRtx if rtx else Flags11 if newest else Flags10
    module.Builder = lambda logger: _Builder(record, logger)
    module.OnnxParser = lambda network, logger: _Parser(record, network)
    module.Runtime = lambda logger: (_RtxRuntime if rtx else _Runtime)(record, logger)
    if rtx:
        module.ComputeCapability = ComputeCapability
        module.EngineInvalidityDiagnostics = EngineInvalidityDiagnostics
        module.CudaGraphStrategy = CudaGraphStrategy
    return module, record


class _Network:
    model = b""

    def get_input(self, index: int) -> Any:
        found: Any = onnx.load_from_string(self.model).graph.input[index]
        return found


class _Config:
    profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def __init__(self, record: FakeTensorRT) -> None:
        self.record = record
        record.flags = {"TF32"}
        self.builder_optimization_level = 3

    def clear_flag(self, flag: enum.IntEnum) -> None:
        self.record.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE
        self.record.workspaces.append(size)

    def create_timing_cache(self, data: bytes) -> _TimingCache | None:
        good = self.record.note("create_timing_cache") and (not data or data.startswith(TIMINGS))
        return _TimingCache(self.record, data) if good else None

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return self.record.note("set_timing_cache") or not cache.data  # timings of another GPU are refused

    def add_optimization_profile(self, profile: object) -> None:
        self.record.note("add_optimization_profile")


class _TimingCache:
    """Knows how many builds used it."""

    def __init__(self, record: FakeTensorRT, data: bytes) -> None:
        self.record, self.data = record, data

    def serialize(self) -> bytes | None:
        count = int(self.data.removeprefix(TIMINGS) or b"0") + 1
        return TIMINGS + str(count).encode() if self.record.note("serialize") else None


class _Profile:
    def __init__(self, record: FakeTensorRT) -> None:
        self.record = record

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.record.profiles.append((name, *shapes))


class _Builder:
    def __init__(self, record: FakeTensorRT, logger: object) -> None:
        self.record = record
        record.start("Builder", logger)

    def create_network(self, flags: int) -> _Network:
        self.record.network_flags = flags
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config(self.record)

    def create_optimization_profile(self) -> _Profile:
        return _Profile(self.record)

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        self.record.levels.append(config.builder_optimization_level)
        detailed = config.profiling_verbosity is ProfilingVerbosity.DETAILED
        return (DETAILED if detailed else PLAN) + network.model if self.record.note("build") else None


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
        record.start("Runtime", logger)

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        good = self.record.note("deserialize") and self.record.needs_context("deserialize")
        good = good and plan.startswith((PLAN, DETAILED))
        return _Engine(self.record, plan[len(PLAN) :], plan.startswith(DETAILED)) if good else None


class CudaGraphStrategy(enum.IntEnum):
    DISABLED, WHOLE_GRAPH_CAPTURE = 0, 1


class _RuntimeCache:
    """Knows whether it holds the kernels of an engine."""

    def __init__(self, record: FakeTensorRT) -> None:
        self.record, self.data = record, b""

    def deserialize(self, data: bytes) -> bool:
        good = self.record.note("deserialize_cache") and self.record.needs_context("deserialize_cache")
        self.data = data if good and data.startswith(KERNELS) else b""
        return bool(self.data)

    def serialize(self) -> bytes | None:
        return self.data if self.record.note("serialize_cache") else None


class _RuntimeConfig:
    def __init__(self, record: FakeTensorRT) -> None:
        self.record = record
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.cache: _RuntimeCache | None = None

    def create_runtime_cache(self) -> _RuntimeCache:
        return _RuntimeCache(self.record)

    def set_runtime_cache(self, cache: _RuntimeCache) -> bool:
        self.cache = cache
        return self.record.note("set_runtime_cache")


class _RtxRuntime(_Runtime):
    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        good = super().deserialize_cuda_engine(plan)
        return _RtxEngine(self.record, plan[len(PLAN) :]) if good else None

    def get_engine_validity(self, plan: bytes) -> tuple[int, int]:
        return 2, self.record.diagnostics or 0


_TYPES = {
    "tensor(float)": (DataType.FLOAT, 4),
    "tensor(float16)": (DataType.HALF, 2),
    "tensor(uint8)": (DataType.UINT8, 1),
    "tensor(int32)": (DataType.INT32, 4),
}


LAYERS = (("cast", "kMYELIN", "Half", 0.25), ("conv", "CaskConvolution", "Row major linear FP32", 1.25))
"""Name, kind, type and milliseconds of the fake's layers."""


class _Inspector:
    def __init__(self, detailed: bool) -> None:
        self.detailed = detailed

    def get_engine_information(self, kind: LayerInformationFormat) -> str:
        assert kind is LayerInformationFormat.JSON
        full = [
            {"Name": name, "LayerType": kind, "Outputs": [{"Name": "x", "Dimensions": [1], "Format/Datatype": type_}]}
            for name, kind, type_, _ in LAYERS
        ]
        return json.dumps({"Layers": full if self.detailed else [name for name, *_ in LAYERS], "Bindings": []})


class _Engine:
    device_memory_size_v2 = 12345

    def __init__(self, record: FakeTensorRT, model: bytes, detailed: bool = False) -> None:
        self.record, self.detailed = record, detailed
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return str(self.nodes[index].name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        node = next(node for node in self.nodes if node.name == name)
        return tuple(size if isinstance(size, int) else -1 for size in node.shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        kind = next(node.type for node in self.nodes if node.name == name)
        return _TYPES[kind][0]

    def get_tensor_size(self, name: str) -> int:
        """Bytes of an element; for the fake's own checks."""
        return _TYPES[next(node.type for node in self.nodes if node.name == name)][1]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 8, 8, 3), (1, 32, 48, 3), (1, 64, 96, 3)]

    def create_engine_inspector(self) -> _Inspector:
        return _Inspector(self.detailed)

    def create_execution_context(self) -> _Context | None:
        good = self.record.note("create_execution_context") and self.record.needs_context("create_execution_context")
        return _Context(self.record, self) if good else None


class _RtxEngine(_Engine):
    def create_runtime_config(self) -> _RuntimeConfig:
        return _RuntimeConfig(self.record)

    def create_execution_context(self, config: _RuntimeConfig | None = None) -> _Context | None:
        if config is not None and config.cache is not None:
            self.record.kernels.append(config.cache.data)
            config.cache.data = config.cache.data or KERNELS
        if config is not None:
            self.record.strategies.append(config.cuda_graph_strategy)
        return super().create_execution_context()


class _Context:
    profiler: Any = None

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

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.record.calls.append(f"set_tensor_address {name}")
        if "set_tensor_address" in self.record.refuse:
            self.record.logger.log(Severity.ERROR, "fake refusal in set_tensor_address")
            return False
        self.addresses[name] = address
        return True

    def _has_memory(self) -> bool:
        """Whether every tensor lies in allocated memory with room for it."""
        driver = self.record.driver
        if driver is None:
            return True
        for name in (node.name for node in self.engine.nodes):
            size = int(np.prod(self.get_tensor_shape(name))) * self.engine.get_tensor_size(name)
            if not driver.fake_holds(ctypes.c_uint64(self.addresses.get(name, 0)), ctypes.c_size_t(size)):
                self.record.logger.log(Severity.ERROR, f"no memory for {name}")
                return False
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if not self.record.note("execute") or not stream or not self.record.needs_context("execute"):
            return False
        if not self._has_memory():
            return False
        driver = self.record.driver
        if driver is None:
            self._run()
            return True
        handle = ctypes.c_void_p(stream)
        if self.record.waits and driver.fake_waits(handle):  # an engine that cannot be captured ends the capture
            self.record.logger.log(Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        number = next(self.record.numbers)
        bound = (self.shape, dict(self.addresses))
        self.record.runs[number] = lambda: self._run_as(bound)
        status = driver.fake_engine(handle, self.record.callback, number)
        if status:
            self.record.logger.log(Severity.ERROR, f"Cuda Runtime failure {status}")
        return not status

    def _run_as(self, bound: tuple[tuple[int, ...], dict[str, int]]) -> None:
        """Run in turn; a captured run of shapes or addresses that are no more is a failure of the GPU."""
        if bound != (self.shape, self.addresses) or not self._has_memory():
            self.record.stale += 1
            self.record.driver.fake_failed(719)
            return
        self.record.driver.fake_tick(ctypes.c_float(RUN_MS))
        self.record.calls.append("ran")
        self._run()

    def _run(self) -> None:
        image = np.frombuffer(ctypes.string_at(self._host("image"), int(np.prod(self.shape))), np.uint8)
        names = [node.name for node in self.engine.session.get_outputs()]
        outputs = self.engine.session.run(names, {"image": image.reshape(self.shape)})
        for name, value in zip(names, outputs, strict=True):
            array = np.array(value)
            if name == "logits" and self.record.poison is not None:
                array.flat[0] = self.record.poison
            data = array.tobytes()
            ctypes.memmove(self._host(name), data, len(data))
        for name, _, _, ms in LAYERS if self.profiler else ():
            self.profiler.report_layer_time(name, ms)

    def _host(self, name: str) -> int:
        """Where the fake has the memory of a tensor."""
        driver = self.record.driver
        return self.addresses[name] if driver is None else int(driver.fake_host(ctypes.c_uint64(self.addresses[name])))
