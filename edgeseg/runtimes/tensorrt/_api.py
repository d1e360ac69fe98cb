"""What edgeseg uses of TensorRT's Python package, for the type checker: the package has no types of its own.

TensorRT and TensorRT for RTX have one API under two names, and neither needs to be installed for this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer  # in `collections.abc` since Python 3.12

__all__ = [
    "Builder",
    "BuilderConfig",
    "CudaEngine",
    "ExecutionContext",
    "Network",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "RuntimeCache",
    "RuntimeConfig",
    "Severity",
    "TimingCache",
]

Shape = tuple[int, ...]


class Severity(Protocol):
    """Of a logged line: ``ILogger.Severity``."""

    name: str


class ParserError(Protocol):
    """``IParserError``."""

    def node(self) -> int: ...
    def desc(self) -> str: ...


class OnnxParser(Protocol):
    """``OnnxParser``."""

    num_errors: int

    def get_error(self, index: int, /) -> ParserError: ...


class Network(Protocol):
    """``INetworkDefinition``."""

    def get_input(self, index: int, /) -> Any: ...


class TimingCache(Protocol):
    """``ITimingCache``."""

    def serialize(self) -> Buffer | None: ...


class BuilderConfig(Protocol):
    """``IBuilderConfig``."""

    builder_optimization_level: int
    num_compute_capabilities: int
    profiling_verbosity: Any

    def create_timing_cache(self, data: bytes, /) -> TimingCache | None: ...
    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool, /) -> bool: ...

    def clear_flag(self, flag: Any, /) -> None: ...
    def set_memory_pool_limit(self, pool: Any, size: int, /) -> None: ...
    def add_optimization_profile(self, profile: Any, /) -> int: ...
    def set_compute_capability(self, capability: Any, index: int, /) -> bool: ...


class Builder(Protocol):
    """``Builder``."""

    def create_builder_config(self) -> BuilderConfig: ...
    def create_optimization_profile(self) -> Any: ...


class ExecutionContext(Protocol):
    """``IExecutionContext``."""

    def set_input_shape(self, name: str, shape: Shape, /) -> bool: ...
    def get_tensor_shape(self, name: str, /) -> Shape: ...
    def set_tensor_address(self, name: str, address: int, /) -> bool: ...
    def execute_async_v3(self, stream: int, /) -> bool: ...


class RuntimeCache(Protocol):
    """``IRuntimeCache`` of TensorRT for RTX."""

    def serialize(self) -> Buffer | None: ...
    def deserialize(self, data: bytes, /) -> bool: ...


class RuntimeConfig(Protocol):
    """``IRuntimeConfig`` of TensorRT for RTX."""

    cuda_graph_strategy: Any

    def set_runtime_cache(self, cache: RuntimeCache, /) -> bool: ...


class CudaEngine(Protocol):
    """``ICudaEngine``."""

    num_io_tensors: int

    def create_execution_context(self, config: Any = ..., /) -> ExecutionContext | None: ...
    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_shape(self, name: str, /) -> Shape: ...
    def get_tensor_dtype(self, name: str, /) -> Any: ...
    def get_tensor_mode(self, name: str, /) -> Any: ...
    def get_tensor_profile_shape(self, name: str, profile: int, /) -> tuple[Shape, Shape, Shape]: ...


class Runtime(Protocol):
    """``Runtime``."""

    def deserialize_cuda_engine(self, plan: bytes, /) -> CudaEngine | None: ...
