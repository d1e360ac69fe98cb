"""Execution contexts of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.runtimes.tensorrt import _api as trt

__all__ = ["Contexts"]


class Contexts:
    """Makes execution contexts of an engine, and keeps it alive.

    Args:
        engine: A deserialised ``ICudaEngine``.

    Attributes:
        graphs: How the engine makes CUDA graphs by itself, in words; empty where it does not.
    """

    graphs = ""

    def __init__(self, engine: trt.CudaEngine) -> None:
        self._engine: trt.CudaEngine | None = engine

    def make(self) -> trt.ExecutionContext | None:
        """Make one; None where TensorRT cannot."""
        return None if self._engine is None else self._engine.create_execution_context()

    def close(self) -> None:
        """Let go of the engine, after its contexts; closing twice is harmless."""
        self._engine = None
