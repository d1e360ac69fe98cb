"""The few calls of the CUDA driver that TensorRT needs beside it: memory, streams, events, and what the GPUs are.

TensorRT's Python package has no allocator. The driver's own library (``libcuda``) is on every machine whose GPU works,
a Jetson included, so it is called with ctypes and nothing else has to be installed. TensorRT uses the device's primary
context; pointers and streams can be handed to it as plain integers.

The primary context is retained once per GPU and stays until the process ends: TensorRT keeps state of its own in it
beyond the life of an engine. It is current in a thread only while that thread is inside `Device.current`, so that
another user of CUDA in the same thread finds its device as it left it.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.runtimes.tensorrt.driver import HIDDEN, driver

__all__ = [
    "WAITS",
    "Buffer",
    "Device",
    "Event",
    "GpuInfo",
    "Graph",
    "Module",
    "PinnedArray",
    "Stream",
    "clear_word",
    "driver_version",
    "list_gpus",
    "open_device",
]

_MAJOR, _MINOR, _INTEGRATED, _CAN_MAP, _MULTIPROCESSORS = 75, 76, 18, 19, 16  # CUdevice_attribute
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_DEVICE_MAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_OUT_OF_MEMORY = 2  # CUresult
_BLOCK = (8, 32)  # rows x columns of threads

WAITS = {"auto": 0, "spin": 1, "yield": 2, "block": 4}
"""How a thread waits for the GPU -> CUctx_flags; ``spin`` answers first and takes a core meanwhile."""

_PTR, _SIZE, _U64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64


@dataclass(frozen=True)
class GpuInfo:
    """One GPU as the driver describes it.

    Attributes:
        ordinal: Number by which it is asked for.
        name: Such as ``"Orin"`` or ``"NVIDIA GeForce RTX 4070"``.
        compute_capability: Such as ``"8.7"``.
        memory: Total bytes; on a Jetson it is the machine's own memory.
        integrated: Whether it shares the machine's memory (Jetson).
        maps_memory: Whether it can use page-locked memory of the host where it lies.
        multiprocessors: Streaming multiprocessors in use; on a Jetson they change with the power mode.
    """

    ordinal: int
    name: str
    compute_capability: str
    memory: int
    integrated: bool
    maps_memory: bool
    multiprocessors: int

    def __str__(self) -> str:
        return f"{self.name}, sm_{self.compute_capability.replace('.', '')}"


def driver_version() -> str:
    """Newest CUDA version the driver serves, such as ``"12.6"``.

    Raises:
        TargetUnavailableError: No NVIDIA driver.
    """
    number = driver().integer("cuDriverGetVersion")
    return f"{number // 1000}.{number % 1000 // 10}"


def list_gpus() -> tuple[GpuInfo, ...]:
    """The GPUs the driver shows (``CUDA_VISIBLE_DEVICES`` honoured); nothing is allocated on them.

    Raises:
        TargetUnavailableError: No NVIDIA driver.
    """
    return tuple(_describe(ordinal) for ordinal in range(driver().integer("cuDeviceGetCount")))


def _describe(ordinal: int) -> GpuInfo:
    opened = driver()
    handle = opened.integer("cuDeviceGet", ordinal)
    name = ctypes.create_string_buffer(256)
    opened.call("cuDeviceGetName", name, len(name), handle)
    attribute = functools.partial(opened.integer, "cuDeviceGetAttribute")
    return GpuInfo(
        ordinal=ordinal,
        name=name.value.decode(errors="replace"),
        compute_capability=f"{attribute(_MAJOR, handle)}.{attribute(_MINOR, handle)}",
        memory=opened.integer("cuDeviceTotalMem_v2", handle, kind=_SIZE),
        integrated=bool(attribute(_INTEGRATED, handle)),
        maps_memory=bool(attribute(_CAN_MAP, handle)),
        multiprocessors=attribute(_MULTIPROCESSORS, handle),
    )


def open_device(word: str | None = None, wait: str | None = None) -> Device:
    """Open a GPU.

    Args:
        word: Its ordinal, such as ``"0"`` or ``"cuda:0"``; None is the first.
        wait: How threads of this process wait for the GPU, a key of `WAITS`; None leaves that as it is.

    Raises:
        UsageError: Not an ordinal.
        UnknownNameError: No such way to wait.
        TargetUnavailableError: No NVIDIA driver, no GPU, or no such GPU.
    """
    if wait is not None and wait not in WAITS:
        raise UnknownNameError("way to wait for the GPU", wait, WAITS)
    text = (word or "0").lower().removeprefix("cuda:").removeprefix("gpu:")
    if not text.isdigit():
        raise UsageError(f"device '{word}' is not the number of a GPU; use 0 for the first")
    gpus = list_gpus()
    if not gpus:
        none = "the NVIDIA driver finds no GPU; choose the target ort or openvino"
        raise TargetUnavailableError(HIDDEN if "CUDA_VISIBLE_DEVICES" in os.environ else none)
    if int(text) >= len(gpus):
        has = ", ".join(f"{gpu.ordinal} ({gpu.name})" for gpu in gpus)
        raise TargetUnavailableError(f"there is no GPU {text}; this machine has {has}")
    return Device(gpus[int(text)], wait)


class Device:
    """A GPU whose primary context is there.

    Args:
        gpu: Which.
        wait: As `open_device` takes it.
    """

    def __init__(self, gpu: GpuInfo, wait: str | None = None) -> None:
        self.gpu = gpu
        if wait is not None:
            driver().call("cuDevicePrimaryCtxSetFlags_v2", driver().integer("cuDeviceGet", gpu.ordinal), WAITS[wait])
        self._context = driver().context(gpu.ordinal)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU the calling thread's for the block, and what was current before it after it."""
        driver().call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            driver().call("cuCtxPopCurrent_v2", ctypes.byref(_PTR()))

    def free_memory(self) -> int:
        """Bytes free on the GPU now."""
        free, total = _SIZE(), _SIZE()
        with self.current():
            driver().call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value


class Buffer:
    """Memory on the GPU of the current context.

    Args:
        size: Bytes.

    Raises:
        EdgesegError: Not enough memory; names what was asked for and what is free.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        address = _U64()
        status = driver().status("cuMemAlloc_v2", ctypes.byref(address), max(1, size))
        if status == _OUT_OF_MEMORY:
            free, total = _SIZE(), _SIZE()
            driver().status("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            raise EdgesegError(
                f"the GPU has no memory for {size / 2**20:.0f} MiB ({free.value / 2**20:.0f} MiB are free); "
                "close other programs or use a smaller size"
            )
        if status != 0:
            raise EdgesegError(f"the CUDA driver failed in cuMemAlloc: {driver().words(status)}")
        self.address = int(address.value)

    def write(self, source: NDArray[Any], stream: Stream) -> None:
        """Start copying a C-contiguous array onto the GPU."""
        driver().call("cuMemcpyHtoDAsync_v2", self.address, source.ctypes.data, source.nbytes, stream.handle)

    def read(self, into: NDArray[Any], stream: Stream) -> None:
        """Start copying from the GPU into a C-contiguous array."""
        driver().call("cuMemcpyDtoHAsync_v2", into.ctypes.data, self.address, into.nbytes, stream.handle)

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        if self.address:
            address, self.address = self.address, 0
            driver().call("cuMemFree_v2", address)


class Stream:
    """A queue of work on the GPU of the current context."""

    def __init__(self) -> None:
        self.handle = driver().integer("cuStreamCreate", _NON_BLOCKING, kind=_PTR)

    def wait(self) -> None:
        """Wait until everything queued is done."""
        driver().call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Free the stream; closing twice is harmless."""
        if self.handle:
            handle, self.handle = self.handle, 0
            driver().call("cuStreamDestroy_v2", handle)


class Graph:
    """Work of a stream, captured to be started again by one call; what it uses must outlive it.

    Args:
        stream: Of the current context, with nothing under way.
        enqueue: Puts the work into the stream. It may neither allocate nor wait.

    Raises:
        EdgesegError: The work cannot be captured; the stream is as it was.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], object]) -> None:
        driver().call("cuStreamBeginCapture_v2", stream.handle, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            with suppress(EdgesegError):  # the first error is the cause
                _end_capture(stream, keep=False)
            raise
        graph, self._handle = _end_capture(stream, keep=True), 0
        try:
            try:
                self._handle = driver().integer("cuGraphInstantiateWithFlags", graph, 0, kind=_PTR)
            finally:
                driver().call("cuGraphDestroy", graph)
        except EdgesegError:
            self.close()
            raise

    def launch(self, stream: Stream) -> None:
        """Start the work in a stream."""
        driver().call("cuGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """Free the graph; closing twice is harmless."""
        if self._handle:
            handle, self._handle = self._handle, 0
            driver().call("cuGraphExecDestroy", handle)


def _end_capture(stream: Stream, *, keep: bool) -> int:
    """End a capture; returns the graph, or frees it. One that was made invalid gives an error and no graph."""
    graph = _PTR()
    status = driver().status("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
    if graph.value and (status != 0 or not keep):
        driver().call("cuGraphDestroy", graph)
    if status != 0 or not graph.value:
        raise EdgesegError(f"the CUDA driver failed in cuStreamEndCapture: {driver().words(status)}")
    return graph.value


class Event:
    """A mark in a stream, for timing."""

    def __init__(self) -> None:
        self.handle = driver().integer("cuEventCreate", 0, kind=_PTR)

    def record(self, stream: Stream) -> None:
        """Put the mark at the stream's end."""
        driver().call("cuEventRecord", self.handle, stream.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Wait for this mark; milliseconds on the GPU between `earlier` and it."""
        value = ctypes.c_float()
        driver().call("cuEventSynchronize", self.handle)
        driver().call("cuEventElapsedTime", ctypes.byref(value), earlier.handle, self.handle)
        return value.value

    def close(self) -> None:
        """Free the event; closing twice is harmless."""
        if self.handle:
            handle, self.handle = self.handle, 0
            driver().call("cuEventDestroy_v2", handle)


class Module:
    """Kernels on the GPU of the current context.

    Args:
        ptx: Their code, which the driver compiles.

    Raises:
        EdgesegError: The driver refuses it; a driver older than the code does.
    """

    def __init__(self, ptx: bytes) -> None:
        self._handle = driver().integer("cuModuleLoadData", ptx, kind=_PTR)
        self._kernels: dict[str, int] = {}

    def launch(self, name: str, size: tuple[int, int], arguments: Sequence[Any], stream: Stream) -> None:
        """Start a kernel with one thread per element.

        Args:
            name: Of the kernel.
            size: Height x width of the elements.
            arguments: ctypes values, in order.
            stream: Where it waits for its turn.
        """
        function = self._kernels.get(name)
        if function is None:
            function = driver().integer("cuModuleGetFunction", self._handle, name.encode(), kind=_PTR)
            self._kernels[name] = function
        pointers = (_PTR * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        grid = -(-size[1] // _BLOCK[1]), -(-size[0] // _BLOCK[0]), 1
        driver().call("cuLaunchKernel", function, *grid, *_BLOCK[::-1], 1, 0, stream.handle, pointers, None)

    def close(self) -> None:
        """Free the code; closing twice is harmless."""
        if self._handle:
            handle, self._handle = self._handle, 0
            driver().call("cuModuleUnload", handle)


class PinnedArray:
    """An array in page-locked host memory, which the GPU copies from and to directly.

    Args:
        shape: Of the array.
        dtype: numpy's name of its type.
        mapped: The GPU also uses it where it lies, at `address`.

    Raises:
        EdgesegError: Not enough memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, *, mapped: bool = False) -> None:
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        self.address, host = 0, _PTR()
        status = driver().status("cuMemHostAlloc", ctypes.byref(host), size, _DEVICE_MAP if mapped else 0)
        if status == _OUT_OF_MEMORY:
            raise EdgesegError(
                f"the machine has no memory for {size / 2**20:.0f} MiB that the GPU reaches; close other programs or "
                "use a smaller size"
            )
        if status != 0:
            raise EdgesegError(f"the CUDA driver failed in cuMemHostAlloc: {driver().words(status)}")
        self._host = host.value or 0
        raw = memoryview((ctypes.c_byte * size).from_address(self._host)).cast("B")
        self.array: NDArray[Any] = np.frombuffer(raw, dtype, count=math.prod(shape)).reshape(shape)
        if mapped:
            try:
                self.address = driver().integer("cuMemHostGetDevicePointer_v2", self._host, 0, kind=_U64)
            except EdgesegError:
                self.close()
                raise

    def close(self) -> None:
        """Free the memory, after which `array` must not be touched; closing twice is harmless."""
        if self._host:
            address, self._host = self._host, 0
            self.array = np.empty(0, self.array.dtype)
            self.address = 0
            driver().call("cuMemFreeHost", address)


def clear_word(address: int, stream: Stream) -> None:
    """Start writing zeros over the four bytes at an address of the GPU."""
    driver().call("cuMemsetD32Async", address, 0, 1, stream.handle)
