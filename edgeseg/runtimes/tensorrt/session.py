"""Running engines, for TensorRT and TensorRT for RTX: their Python packages have one API under two names.

Tensors are addressed by name. Every call of an engine or of the driver is made inside `cuda.Device.current`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import MODEL, Bundle
from edgeseg.errors import BundleError, EdgesegError, InputError
from edgeseg.runtimes._base import CLOSED, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import errors_logged, logger_of, package_name, started
from edgeseg.runtimes.tensorrt.environment import check_environment
from edgeseg.runtimes.tensorrt.label_kernel import DeviceLogits, LabelKernel
from edgeseg.runtimes.tensorrt.packages import GRAPH, TARGETS
from edgeseg.runtimes.tensorrt.plan_cache import PlanRefusedError
from edgeseg.runtimes.tensorrt.timing import measure
from edgeseg.runtimes.times import EngineTimes, check_repeat
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.labels import LabelMap
    from edgeseg.runtimes._base import LabelRequest
    from edgeseg.runtimes.tensorrt import _api as trt
    from edgeseg.specs import PostprocessSpec

__all__ = ["EngineSession", "graph_file", "load_plan"]

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def graph_file(bundle: Bundle) -> str:
    """The bundle's graph for a GPU.

    Raises:
        BundleError: The bundle was exported for no GPU target, so that nothing was proven for one.
    """
    if set(TARGETS).isdisjoint(bundle.manifest.targets):
        raise BundleError(
            f"bundle '{one_line(bundle.path)}' was exported for {', '.join(bundle.manifest.targets)}; "
            "export it again with --target trt or trt-rtx"
        )
    return GRAPH if bundle.has(GRAPH) else MODEL


def load_plan(module: ModuleType, plan: bytes) -> trt.CudaEngine:
    """Deserialise an engine. Call it only where there is a GPU, with its context current.

    Raises:
        TargetUnavailableError: No engine of this package would run here: an old driver, or a GPU it does not know.
        PlanRefusedError: TensorRT refuses the bytes: another version, another GPU, or damage.
    """
    logger = logger_of(module)
    errors_logged(logger)
    runtime = started(module, lambda: module.Runtime(logger))
    engine: trt.CudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        said = errors_logged(logger)
        check_environment(module, runtime, plan, said)
        raise PlanRefusedError(said or f"{package_name(module)} gave no reason")
    return engine


@dataclass
class _Tensor:
    """One input or output of an engine with its memory, which grows when a larger shape comes.

    Attributes:
        info: The tensor.
        shape: That the memory is for now.
        device: Memory on the GPU.
        host: Page-locked memory; made when it is first copied from or to.
    """

    info: TensorInfo
    shape: tuple[int, ...] = ()
    device: cuda.Buffer | None = None
    host: cuda.PinnedArray | None = None

    def fit(self, shape: tuple[int, ...]) -> cuda.Buffer:
        """Give memory on the GPU for at least `shape`. Where that fails there is none, and the next call tries again.

        Raises:
            EdgesegError: Not enough memory.
        """
        size = math.prod(shape) * np.dtype(self.info.dtype).itemsize
        if self.host is not None and self.host.array.shape != shape:
            self._free_host()
        if self.device is None or self.device.size < size:
            self._free_device()
            self.device = cuda.Buffer(size)
        self.shape = shape
        return self.device

    def on_host(self) -> NDArray[Any]:
        """The page-locked array of this shape.

        Raises:
            EdgesegError: Not enough memory.
        """
        if self.host is None:
            self.host = cuda.PinnedArray(self.shape, self.info.dtype)
        return self.host.array

    def on_device(self) -> cuda.Buffer:
        """The memory on the GPU.

        Raises:
            EdgesegError: There is none.
        """
        if self.device is None:
            raise EdgesegError("the session has no memory on the GPU; open it again")
        return self.device

    def close(self) -> None:
        """Free both; closing twice is harmless."""
        try:
            self._free_device()
        finally:
            self._free_host()

    def _free_device(self) -> None:
        device, self.device = self.device, None
        if device is not None:
            device.close()

    def _free_host(self) -> None:
        host, self.host = self.host, None
        if host is not None:
            host.close()


class EngineSession(SessionBase):
    """A TensorRT engine with one execution context; calls wait for one another.

    Args:
        module: The TensorRT package.
        device: The GPU, current in the calling thread.
        engine: A deserialised ``ICudaEngine``.
        info: What runs.
        postprocess: The recorded postprocessing of the network.
    """

    def __init__(
        self,
        module: ModuleType,
        device: cuda.Device,
        engine: trt.CudaEngine,
        info: SessionInfo,
        postprocess: PostprocessSpec,
    ) -> None:
        self.info = info
        self._device, self._logger = device, logger_of(module)
        self._engine: trt.CudaEngine | None = engine
        self._context: trt.ExecutionContext | None = engine.create_execution_context()
        if self._context is None:
            said = errors_logged(self._logger) or "it gave no reason"
            raise EdgesegError(f"{info.engine} cannot prepare the engine on {info.device}: {said}")
        tensors = [_describe(engine, index) for index in range(engine.num_io_tensors)]
        self.inputs = tuple(tensor for tensor, mode in tensors if mode == "INPUT")
        self.outputs = tuple(tensor for tensor, mode in tensors if mode == "OUTPUT")
        self._tensors = {tensor.name: _Tensor(tensor) for tensor, _ in tensors}
        self._shape: tuple[int, ...] = ()
        self._kernel: LabelKernel | None = None
        self._stream = cuda.Stream()
        try:
            self._kernel = LabelKernel(postprocess)
        except EdgesegError as error:
            note = f"the labels are made on the host, since the GPU's driver does not take the label kernel ({error})"
            self.info = replace(info, notes=(*info.notes, note))
        self.labels_on_device = self._kernel is not None

    def _run_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> list[LabelMap]:
        if self._kernel is None:
            return super()._run_labels(image, wanted)
        with self._device.current():
            self._load(image)
            self._execute()
            tensor = self._tensors["logits"]
            logits = DeviceLogits(tensor.on_device(), tensor.shape, tensor.info.dtype)
            return [
                self._kernel.labels(logits, index, size, region, self._stream)
                for index, (size, region) in enumerate(wanted)
            ]

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        with self._device.current():
            self._load(image)
            self._execute()
            return self._fetch(names)

    def engine_times(self, image: NDArray[np.uint8], repeat: int) -> EngineTimes:
        """Time the engine alone, between events on the GPU. The first run of all is not counted.

        Args:
            image: As in `run`.
            repeat: How many runs of each kind.

        Raises:
            InputError: As `run`.
            UsageError: `repeat` is below 1.
        """
        check_repeat(repeat)
        self._check_input(image)
        with self._entered(), self._device.current():
            self._load(np.ascontiguousarray(image))
            return measure(self._execute, self._stream, repeat)

    def _load(self, image: NDArray[np.uint8]) -> None:
        """Bring the image onto the GPU, with memory for outputs of its size."""
        if image.shape != self._shape:
            self._bind(image.shape)
        tensor = self._tensors[self.inputs[0].name]
        pinned = tensor.on_host()
        np.copyto(pinned, image)
        tensor.on_device().write(pinned, self._stream)

    def _bind(self, shape: tuple[int, ...]) -> None:
        """Tell the context the input's shape and where every tensor lies."""
        context, name = self._live(), self.inputs[0].name
        if not context.set_input_shape(name, shape):
            raise InputError(f"the engine does not take a size of {shape[1]}x{shape[2]}: {self._range(name)}")
        self._shape = ()
        for key, tensor in self._tensors.items():
            memory = tensor.fit(tuple(int(size) for size in context.get_tensor_shape(key)))
            if not context.set_tensor_address(key, memory.address):
                raise EdgesegError(f"{self.info.engine} does not take memory for '{key}': {self._said()}")
        self._shape = shape

    def _range(self, name: str) -> str:
        """The sizes the engine was built for, in words."""
        if self._engine is None:
            return "it is closed"
        errors_logged(self._logger)
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        return f"it was built for {low[1]}x{low[2]} to {high[1]}x{high[2]}"

    def _execute(self) -> None:
        if not self._live().execute_async_v3(self._stream.handle):
            raise EdgesegError(f"{self.info.engine} failed to run the engine: {self._said()}")

    def _said(self) -> str:
        return errors_logged(self._logger) or "it gave no reason"

    def _fetch(self, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Copy the wanted outputs back, wait, and give the caller arrays of its own."""
        hosts: dict[str, NDArray[Any]] = {}
        for name in names:
            hosts[name] = self._tensors[name].on_host()
            self._tensors[name].on_device().read(hosts[name], self._stream)
        self._stream.wait()
        return {name: host.copy() for name, host in hosts.items()}

    def _live(self) -> trt.ExecutionContext:
        if self._context is None:
            raise InputError(CLOSED)
        return self._context

    def _free(self) -> None:
        with self._device.current(), ExitStack() as frees:  # all of them, whatever one says
            frees.callback(self._stream.close)
            if self._kernel is not None:
                frees.callback(self._kernel.close)
            for tensor in self._tensors.values():
                frees.callback(tensor.close)
            self._context = None  # before the engine
            self._engine = None


def _describe(engine: trt.CudaEngine, index: int) -> tuple[TensorInfo, str]:
    name = engine.get_tensor_name(index)
    shape = tuple(int(size) if size >= 0 else None for size in engine.get_tensor_shape(name))
    kind = str(engine.get_tensor_dtype(name).name)
    return TensorInfo(name, shape, _DTYPES.get(kind, kind.lower())), str(engine.get_tensor_mode(name).name)
