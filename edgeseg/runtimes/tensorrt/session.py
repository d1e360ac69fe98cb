"""Running engines, for TensorRT and TensorRT for RTX: their Python packages have one API under two names.

Tensors are addressed by name. Every call of an engine or of the driver is made inside `cuda.Device.current`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import MODEL, Bundle
from edgeseg.errors import BundleError, EdgesegError, InputError, UsageError
from edgeseg.runtimes._base import CLOSED, INHERITED, RuntimeOptions, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes.pending import Pending
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import errors_logged, logger_of, package_name, started
from edgeseg.runtimes.tensorrt.contexts import Contexts
from edgeseg.runtimes.tensorrt.environment import check_environment
from edgeseg.runtimes.tensorrt.label_kernel import LabelKernel
from edgeseg.runtimes.tensorrt.packages import GRAPH, TARGETS
from edgeseg.runtimes.tensorrt.plan_cache import PlanRefusedError
from edgeseg.runtimes.tensorrt.slots import Labels, Outputs, Slot, SlotPool, SlotRecipe
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


class EngineSession(SessionBase):
    """A TensorRT engine; as many frames as there are places are under way at once, other calls wait for one another.

    Args:
        module: The TensorRT package.
        device: The GPU, current in the calling thread.
        engine: A deserialised ``ICudaEngine``.
        info: What runs.
        postprocess: The recorded postprocessing of the network.
        options: `cuda_graph` and `zero_copy` are used.
        contexts: Makes execution contexts; None makes the engine's plain ones.

    Raises:
        EdgesegError: Not enough memory.
        UsageError: `zero_copy` is asked for, and the GPU cannot use the host's memory.
    """

    overlaps = True
    places = 2

    def __init__(
        self,
        module: ModuleType,
        device: cuda.Device,
        engine: trt.CudaEngine,
        info: SessionInfo,
        postprocess: PostprocessSpec,
        options: RuntimeOptions | None = None,
        contexts: Contexts | None = None,
    ) -> None:
        options, contexts = options or RuntimeOptions(), contexts or Contexts(engine)
        self._contexts = contexts
        self._device, self._telling = device, threading.Lock()
        zero_copy, graphs = _zero_copy(device.gpu, options), options.cuda_graph is not False
        graphs = graphs and contexts.captured
        words = {"zero copy": zero_copy, "CUDA graph": graphs}
        mode = (*info.mode, *(word for word, chosen in words.items() if chosen), *contexts.mode)
        self.info = replace(info, mode=mode, notes=(*info.notes, *contexts.notes))
        tensors = [_describe(engine, index) for index in range(engine.num_io_tensors)]
        self.inputs = tuple(tensor for tensor, kind in tensors if kind == "INPUT")
        self.outputs = tuple(_handed_out(tensor) for tensor, kind in tensors if kind == "OUTPUT")
        self._kernel = self._label_kernel(postprocess)
        self.labels_on_device = self._kernel is not None
        tell = _weakly(self._tell)
        recipe = SlotRecipe(
            module=module,
            engine=engine,
            name=info.engine,
            context=contexts.make,
            tensors=tuple(tensor for tensor, _ in tensors),
            image=self.inputs[0].name,
            kernel=self._kernel,
            zero_copy=zero_copy,
            graphs=graphs,
            tell=tell,
        )
        try:
            self._pool: SlotPool | None = SlotPool(lambda: Slot(recipe), self.places, tell)
        except EdgesegError:
            self._free_kernel()
            raise

    def start(self, image: NDArray[np.uint8], names: tuple[str, ...] | None = None) -> Pending[dict[str, NDArray[Any]]]:
        """Begin what `run` does: the image is copied when this returns, and the GPU at work.

        Raises:
            InputError: As `run`.
            EdgesegError: The engine does not start.
        """
        chosen = self._chosen(image, names)
        with self._entered():
            return self._begin(np.ascontiguousarray(image), Outputs(chosen), grow=True)

    def start_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> Pending[list[LabelMap]]:
        """Begin what `device_labels` does, as `start`.

        Raises:
            InputError: As `run`.
            UsageError: As `device_labels`.
        """
        self._check_input(image)
        with self._entered():
            return self._begin(np.ascontiguousarray(image), self._labels(wanted), grow=True)

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        outputs: dict[str, NDArray[Any]] = self._begin(image, Outputs(names)).result()
        return outputs

    def _run_labels(self, image: NDArray[np.uint8], wanted: Sequence[LabelRequest]) -> list[LabelMap]:
        labels: list[LabelMap] = self._begin(image, self._labels(wanted)).result()
        return labels

    def _labels(self, wanted: Sequence[LabelRequest]) -> Labels:
        if self._kernel is None:
            self._refuse_labels()
        return Labels(tuple(wanted))

    def _begin(self, image: NDArray[np.uint8], wanted: Outputs | Labels, *, grow: bool = False) -> Pending[Any]:
        """Start a frame in a slot, which comes back when the frame is ended."""
        pool = self._live()
        slot: Slot | None = None
        try:
            with self._device.current():
                slot = pool.take(grow=grow)
                slot.begin(image, wanted)
        except BaseException:
            if slot is not None:
                pool.give(slot)
            raise
        frame = Pending(lambda: self._end(pool, slot))
        pool.begun(slot, frame)
        return frame

    def _end(self, pool: SlotPool, slot: Slot) -> Any:
        if self._inherited():
            raise InputError(INHERITED)
        try:
            with self._device.current():
                return slot.end()
        finally:
            pool.give(slot)

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
            pool = self._live()
            slot = pool.take()
            try:
                return slot.engine_times(np.ascontiguousarray(image), repeat)
            finally:
                pool.give(slot)

    def _label_kernel(self, postprocess: PostprocessSpec) -> LabelKernel | None:
        try:
            return LabelKernel(postprocess)
        except EdgesegError as error:
            self._tell(
                f"the labels are made on the host, since the GPU's driver does not take the label kernel ({error})"
            )
            return None

    def _tell(self, note: str) -> None:
        """Add a sentence to what the user must see."""
        with self._telling:
            if note not in self.info.notes:
                self.info = replace(self.info, notes=(*self.info.notes, note))

    def _live(self) -> SlotPool:
        if self._pool is None:
            raise InputError(CLOSED)
        return self._pool

    def _free(self) -> None:
        with self._device.current(), ExitStack() as frees:  # all of them, whatever one says
            pool, self._pool = self._pool, None
            frees.callback(self._contexts.close)
            frees.callback(self._free_kernel)
            if pool is not None:
                frees.callback(pool.close)

    def _free_kernel(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()


def _weakly(tell: Callable[[str], None]) -> Callable[[str], None]:
    """A session's method for its parts, which must not keep the session alive."""
    method = weakref.WeakMethod(tell)

    def told(note: str) -> None:
        alive = method()
        if alive is not None:
            alive(note)

    return told


def _zero_copy(gpu: cuda.GpuInfo, options: RuntimeOptions) -> bool:
    """Whether image and labels stay where the host has them: by default where the GPU shares the host's memory."""
    if options.zero_copy and not gpu.maps_memory:
        raise UsageError(f"{gpu} cannot use the host's memory where it lies; leave zero_copy out")
    return gpu.maps_memory and (gpu.integrated if options.zero_copy is None else options.zero_copy)


def _handed_out(tensor: TensorInfo) -> TensorInfo:
    """An output as `EngineSession.run` gives it: float32 where the engine computes in half."""
    return replace(tensor, dtype="float32") if tensor.dtype == "float16" else tensor


def _describe(engine: trt.CudaEngine, index: int) -> tuple[TensorInfo, str]:
    name = engine.get_tensor_name(index)
    shape = tuple(int(size) if size >= 0 else None for size in engine.get_tensor_shape(name))
    kind = str(engine.get_tensor_dtype(name).name)
    return TensorInfo(name, shape, _DTYPES.get(kind, kind.lower())), str(engine.get_tensor_mode(name).name)
