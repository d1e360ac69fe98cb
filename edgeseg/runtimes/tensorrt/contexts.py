"""Execution contexts of an engine, and what TensorRT for RTX keeps for them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from edgeseg.errors import StorageError
from edgeseg.runtimes.tensorrt.kept_file import KeptFile, UnusableError

if TYPE_CHECKING:
    from edgeseg.runtimes.tensorrt import _api as trt

__all__ = ["Contexts", "RtxContexts"]

_log = logging.getLogger(__name__)


class Contexts:
    """Makes execution contexts of an engine, and keeps it alive.

    Args:
        engine: A deserialised ``ICudaEngine``.

    Attributes:
        captured: Whether a frame may be captured from outside.
        mode: What the engine does by itself, in words.
        notes: Sentences the user must see.
    """

    captured = True
    mode: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, engine: trt.CudaEngine) -> None:
        self._engine: trt.CudaEngine | None = engine

    def make(self) -> trt.ExecutionContext | None:
        """Make one; None where TensorRT cannot."""
        return None if self._engine is None else self._engine.create_execution_context()

    def close(self) -> None:
        """Let go of the engine, after its contexts; closing twice is harmless."""
        self._engine = None


class RtxContexts(Contexts):
    """Contexts of TensorRT for RTX, which makes an engine's kernels when it is loaded, and CUDA graphs by itself.

    Args:
        module: TensorRT-RTX.
        engine: A deserialised ``ICudaEngine``.
        kept: Where the kernels are kept between runs.
        graphs: Let it make CUDA graphs.
    """

    captured = False

    def __init__(self, module: ModuleType, engine: trt.CudaEngine, kept: KeptFile, *, graphs: bool) -> None:
        super().__init__(engine)
        self._strategies = getattr(module, "CudaGraphStrategy", None) if graphs else None
        self._kept: KeptFile | None = None
        self._cache: trt.RuntimeCache | None = None
        self._hash = ""
        config = self._config(engine)
        if graphs and (config is None or self._strategies is None or not hasattr(config, "cuda_graph_strategy")):
            self._strategies = None
            self.notes += ("this TensorRT-RTX makes no CUDA graphs, so that each part of a frame is started by itself",)
        elif graphs:
            self.mode = ("CUDA graph of the engine",)
        make = getattr(config, "create_runtime_cache", None)
        if make is not None:
            self._open(make(), kept)

    def make(self) -> trt.ExecutionContext | None:
        """Make one; None where TensorRT cannot."""
        engine = self._engine
        config = None if engine is None else self._config(engine)
        if engine is None or config is None:
            return super().make()
        if self._cache is not None and not config.set_runtime_cache(self._cache):
            _log.warning("TensorRT-RTX does not take the cache of its kernels: they are made anew")
        if self._strategies is not None:
            config.cuda_graph_strategy = self._strategies.WHOLE_GRAPH_CAPTURE
        return engine.create_execution_context(config)

    def _config(self, engine: trt.CudaEngine) -> trt.RuntimeConfig | None:
        make: Callable[[], trt.RuntimeConfig] | None = getattr(engine, "create_runtime_config", None)
        return None if make is None else make()

    def _open(self, cache: trt.RuntimeCache, kept: KeptFile) -> None:
        """Fill a cache with the kernels of earlier runs; those that do not fit are made anew, and that is said."""
        self._cache, refused = cache, kept.refusal()
        if refused:
            self.notes += (refused,)
            return
        self._kept = kept
        which = f"the cached kernels {kept.path.name[:12]}"
        try:
            data = kept.read()
        except UnusableError as error:
            self.notes += (f"{which} {error} and are made again{error.advice}",)
            return
        if data is None:
            return
        if cache.deserialize(data):
            self._hash = hashlib.sha256(data).hexdigest()
            kept.used()
        else:
            self.notes += (f"{which} do not fit this machine any more and are made again",)

    def close(self) -> None:
        """Keep the kernels, where any are new, and let go of the engine; closing twice is harmless."""
        super().close()
        cache, self._cache = self._cache, None
        memory = None if cache is None or self._kept is None else cache.serialize()
        if memory is None or self._kept is None:
            return
        data = bytes(memory)
        if hashlib.sha256(data).hexdigest() == self._hash:
            return
        try:
            self._kept.write(data)
        except StorageError as error:
            _log.warning("the kernels of the engine are made again by the next run: %s", error)
