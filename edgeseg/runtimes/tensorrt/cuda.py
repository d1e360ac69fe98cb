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
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError, TargetUnavailableError, UsageError

__all__ = [
    "Buffer",
    "Device",
    "Event",
    "GpuInfo",
    "Module",
    "PinnedArray",
    "Stream",
    "driver_version",
    "list_gpus",
    "open_device",
]

_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS = 75, 76, 18, 16  # CUdevice_attribute
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_OUT_OF_MEMORY, _NO_DEVICE, _MISMATCH, _UNKNOWN = 2, 100, 803, 999  # CUresult
_BLOCK = (8, 32)  # rows x columns of threads
_TEGRA = Path("/etc/nv_tegra_release")

_PTR, _SIZE, _INT, _UINT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint
_U64 = ctypes.c_uint64  # CUdeviceptr
_OUT = ctypes.c_void_p  # a pointer the call writes through
_Number: TypeAlias = type[ctypes.c_int] | type[ctypes.c_size_t] | type[ctypes.c_void_p]

#: Function of the driver -> types of its arguments; every one returns a CUresult.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UINT,),
    "cuDriverGetVersion": (_OUT,),
    "cuDeviceGetCount": (_OUT,),
    "cuDeviceGet": (_OUT, _INT),
    "cuDeviceGetName": (ctypes.c_char_p, _INT, _INT),
    "cuDeviceTotalMem_v2": (_OUT, _INT),
    "cuDeviceGetAttribute": (_OUT, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_OUT, _INT),
    "cuCtxPushCurrent_v2": (_PTR,),
    "cuCtxPopCurrent_v2": (_OUT,),
    "cuMemGetInfo_v2": (_OUT, _OUT),
    "cuMemAlloc_v2": (_OUT, _SIZE),
    "cuMemFree_v2": (_U64,),
    "cuMemAllocHost_v2": (_OUT, _SIZE),
    "cuMemFreeHost": (_PTR,),
    "cuMemcpyHtoDAsync_v2": (_U64, _PTR, _SIZE, _PTR),
    "cuMemcpyDtoHAsync_v2": (_PTR, _U64, _SIZE, _PTR),
    "cuStreamCreate": (_OUT, _UINT),
    "cuStreamSynchronize": (_PTR,),
    "cuStreamDestroy_v2": (_PTR,),
    "cuEventCreate": (_OUT, _UINT),
    "cuEventRecord": (_PTR, _PTR),
    "cuEventSynchronize": (_PTR,),
    "cuEventElapsedTime": (_OUT, _PTR, _PTR),
    "cuEventDestroy_v2": (_PTR,),
    "cuModuleLoadData": (_OUT, ctypes.c_char_p),
    "cuModuleUnload": (_PTR,),
    "cuModuleGetFunction": (_OUT, _PTR, ctypes.c_char_p),
    "cuLaunchKernel": (_PTR, *(_UINT,) * 7, _PTR, _PTR, _PTR),
    "cuGetErrorName": (_INT, _OUT),
    "cuGetErrorString": (_INT, _OUT),
}


@dataclass(frozen=True)
class GpuInfo:
    """One GPU as the driver describes it.

    Attributes:
        ordinal: Number by which it is asked for.
        name: Such as ``"Orin"`` or ``"NVIDIA GeForce RTX 4070"``.
        compute_capability: Such as ``"8.7"``.
        memory: Total bytes; on a Jetson it is the machine's own memory.
        integrated: Whether it shares the machine's memory (Jetson).
        multiprocessors: Streaming multiprocessors in use; on a Jetson they change with the power mode.
    """

    ordinal: int
    name: str
    compute_capability: str
    memory: int
    integrated: bool
    multiprocessors: int

    def __str__(self) -> str:
        return f"{self.name}, sm_{self.compute_capability.replace('.', '')}"


def _library_names() -> tuple[str, ...]:
    if sys.platform == "win32":
        return ("nvcuda.dll",)
    return ("libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1")


class _Driver:
    """The driver's library with its functions typed; a call that fails raises one sentence."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        self._contexts: dict[int, int] = {}
        self._lock = threading.Lock()
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name, None)
            if function is None:
                raise TargetUnavailableError(
                    f"the NVIDIA driver here is too old: it has no {name}; install a newer one"
                )
            function.argtypes, function.restype = list(arguments), _INT
            self._functions[name] = function

    def context(self, ordinal: int) -> int:
        """The primary context of a GPU, retained at the first call and never released."""
        with self._lock:
            if ordinal not in self._contexts:
                handle = self.integer("cuDeviceGet", ordinal)
                self._contexts[ordinal] = self.integer("cuDevicePrimaryCtxRetain", handle, kind=_PTR)
            return self._contexts[ordinal]

    def status(self, name: str, *arguments: object) -> int:
        """Call a function and return its CUresult."""
        return int(self._functions[name](*arguments))

    def call(self, name: str, *arguments: object) -> None:
        """Call a function.

        Raises:
            EdgesegError: It failed; names the function and the driver's own words.
        """
        status = self.status(name, *arguments)
        if status != 0:
            raise EdgesegError(f"the CUDA driver failed in {name}: {self.words(status)}")

    def words(self, status: int) -> str:
        """The driver's words for a CUresult, such as ``"out of memory (CUDA_ERROR_OUT_OF_MEMORY)"``."""
        name, text = ctypes.c_char_p(), ctypes.c_char_p()
        self.status("cuGetErrorName", status, ctypes.byref(name))
        self.status("cuGetErrorString", status, ctypes.byref(text))
        return f"{(text.value or b'unknown error').decode()} ({(name.value or str(status).encode()).decode()})"

    def integer(self, name: str, *arguments: object, kind: _Number = ctypes.c_int) -> int:
        """Call a function that writes one number through its first argument."""
        value = kind()
        self.call(name, ctypes.byref(value), *arguments)
        return int(value.value or 0)


@functools.lru_cache(maxsize=1)
def _driver() -> _Driver:
    """The initialised driver.

    Raises:
        TargetUnavailableError: No NVIDIA driver, or it does not start.
    """
    for name in _library_names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        driver = _Driver(library)
        status = driver.status("cuInit", 0)
        if status != 0:
            raise TargetUnavailableError(_start_failure(status, driver.words(status)))
        return driver
    raise TargetUnavailableError(
        "this machine has no NVIDIA driver (libcuda was not found), so no GPU can be used; "
        "install the driver, or choose the target ort or openvino"
    )


def _start_failure(status: int, words: str) -> str:
    """Why the driver does not start, and what to do."""
    if status == _NO_DEVICE and "CUDA_VISIBLE_DEVICES" in os.environ:
        return _HIDDEN
    if status in (_NO_DEVICE, _UNKNOWN) and _TEGRA.exists():
        advice = (
            "the user must be in the groups video and render (sudo usermod -aG video,render $USER, then log in again), "
            "and a container is started with --runtime nvidia"
        )
    elif status == _MISMATCH:
        advice = "the driver was updated while its kernel module ran on; restart the machine"
    else:
        advice = "check it with nvidia-smi"
    return f"the NVIDIA driver does not start: {words}; {advice}"


_HIDDEN = (
    "the NVIDIA driver finds no GPU that CUDA_VISIBLE_DEVICES leaves visible; set it to the number of a GPU, unset it, "
    "or choose the target ort or openvino"
)


def driver_version() -> str:
    """Newest CUDA version the driver serves, such as ``"12.6"``.

    Raises:
        TargetUnavailableError: No NVIDIA driver.
    """
    number = _driver().integer("cuDriverGetVersion")
    return f"{number // 1000}.{number % 1000 // 10}"


def list_gpus() -> tuple[GpuInfo, ...]:
    """The GPUs the driver shows (``CUDA_VISIBLE_DEVICES`` honoured); nothing is allocated on them.

    Raises:
        TargetUnavailableError: No NVIDIA driver.
    """
    return tuple(_describe(ordinal) for ordinal in range(_driver().integer("cuDeviceGetCount")))


def _describe(ordinal: int) -> GpuInfo:
    driver = _driver()
    handle = driver.integer("cuDeviceGet", ordinal)
    name = ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", name, len(name), handle)
    attribute = functools.partial(driver.integer, "cuDeviceGetAttribute")
    return GpuInfo(
        ordinal=ordinal,
        name=name.value.decode(errors="replace"),
        compute_capability=f"{attribute(_MAJOR, handle)}.{attribute(_MINOR, handle)}",
        memory=driver.integer("cuDeviceTotalMem_v2", handle, kind=_SIZE),
        integrated=bool(attribute(_INTEGRATED, handle)),
        multiprocessors=attribute(_MULTIPROCESSORS, handle),
    )


def open_device(word: str | None = None) -> Device:
    """Open a GPU.

    Args:
        word: Its ordinal, such as ``"0"`` or ``"cuda:0"``; None is the first.

    Raises:
        UsageError: Not an ordinal.
        TargetUnavailableError: No NVIDIA driver, no GPU, or no such GPU.
    """
    text = (word or "0").lower().removeprefix("cuda:").removeprefix("gpu:")
    if not text.isdigit():
        raise UsageError(f"device '{word}' is not the number of a GPU; use 0 for the first")
    gpus = list_gpus()
    if not gpus:
        none = "the NVIDIA driver finds no GPU; choose the target ort or openvino"
        raise TargetUnavailableError(_HIDDEN if "CUDA_VISIBLE_DEVICES" in os.environ else none)
    if int(text) >= len(gpus):
        has = ", ".join(f"{gpu.ordinal} ({gpu.name})" for gpu in gpus)
        raise TargetUnavailableError(f"there is no GPU {text}; this machine has {has}")
    return Device(gpus[int(text)])


class Device:
    """A GPU whose primary context is there.

    Args:
        gpu: Which.
    """

    def __init__(self, gpu: GpuInfo) -> None:
        self.gpu = gpu
        self._context = _driver().context(gpu.ordinal)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU the calling thread's for the block, and what was current before it after it."""
        _driver().call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            _driver().call("cuCtxPopCurrent_v2", ctypes.byref(_PTR()))

    def free_memory(self) -> int:
        """Bytes free on the GPU now."""
        free, total = _SIZE(), _SIZE()
        with self.current():
            _driver().call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
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
        status = _driver().status("cuMemAlloc_v2", ctypes.byref(address), max(1, size))
        if status == _OUT_OF_MEMORY:
            free, total = _SIZE(), _SIZE()
            _driver().status("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
            raise EdgesegError(
                f"the GPU has no memory for {size / 2**20:.0f} MiB ({free.value / 2**20:.0f} MiB are free); "
                "close other programs or use a smaller size"
            )
        if status != 0:
            raise EdgesegError(f"the CUDA driver failed in cuMemAlloc: {_driver().words(status)}")
        self.address = int(address.value)

    def write(self, source: NDArray[Any], stream: Stream) -> None:
        """Start copying a C-contiguous array onto the GPU."""
        _driver().call("cuMemcpyHtoDAsync_v2", self.address, source.ctypes.data, source.nbytes, stream.handle)

    def read(self, into: NDArray[Any], stream: Stream) -> None:
        """Start copying from the GPU into a C-contiguous array."""
        _driver().call("cuMemcpyDtoHAsync_v2", into.ctypes.data, self.address, into.nbytes, stream.handle)

    def close(self) -> None:
        """Free the memory; closing twice is harmless."""
        if self.address:
            address, self.address = self.address, 0
            _driver().call("cuMemFree_v2", address)


class Stream:
    """A queue of work on the GPU of the current context."""

    def __init__(self) -> None:
        self.handle = _driver().integer("cuStreamCreate", _NON_BLOCKING, kind=_PTR)

    def wait(self) -> None:
        """Wait until everything queued is done."""
        _driver().call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Free the stream; closing twice is harmless."""
        if self.handle:
            handle, self.handle = self.handle, 0
            _driver().call("cuStreamDestroy_v2", handle)


class Event:
    """A mark in a stream, for timing."""

    def __init__(self) -> None:
        self.handle = _driver().integer("cuEventCreate", 0, kind=_PTR)

    def record(self, stream: Stream) -> None:
        """Put the mark at the stream's end."""
        _driver().call("cuEventRecord", self.handle, stream.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Wait for this mark; milliseconds on the GPU between `earlier` and it."""
        value = ctypes.c_float()
        _driver().call("cuEventSynchronize", self.handle)
        _driver().call("cuEventElapsedTime", ctypes.byref(value), earlier.handle, self.handle)
        return value.value

    def close(self) -> None:
        """Free the event; closing twice is harmless."""
        if self.handle:
            handle, self.handle = self.handle, 0
            _driver().call("cuEventDestroy_v2", handle)


class Module:
    """Kernels on the GPU of the current context.

    Args:
        ptx: Their code, which the driver compiles.

    Raises:
        EdgesegError: The driver refuses it; a driver older than the code does.
    """

    def __init__(self, ptx: bytes) -> None:
        self._handle = _driver().integer("cuModuleLoadData", ptx, kind=_PTR)

    def launch(self, name: str, size: tuple[int, int], arguments: Sequence[Any], stream: Stream) -> None:
        """Start a kernel with one thread per element.

        Args:
            name: Of the kernel.
            size: Height x width of the elements.
            arguments: ctypes values, in order.
            stream: Where it waits for its turn.
        """
        function = _driver().integer("cuModuleGetFunction", self._handle, name.encode(), kind=_PTR)
        pointers = (_PTR * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        grid = -(-size[1] // _BLOCK[1]), -(-size[0] // _BLOCK[0]), 1
        _driver().call("cuLaunchKernel", function, *grid, *_BLOCK[::-1], 1, 0, stream.handle, pointers, None)

    def close(self) -> None:
        """Free the code; closing twice is harmless."""
        if self._handle:
            handle, self._handle = self._handle, 0
            _driver().call("cuModuleUnload", handle)


class PinnedArray:
    """An array in page-locked host memory, which the GPU copies from and to directly.

    Args:
        shape: Of the array.
        dtype: numpy's name of its type.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        self._address = _driver().integer("cuMemAllocHost_v2", size, kind=_PTR)
        raw = memoryview((ctypes.c_byte * size).from_address(self._address)).cast("B")
        self.array: NDArray[Any] = np.frombuffer(raw, dtype, count=math.prod(shape)).reshape(shape)

    def close(self) -> None:
        """Free the memory, after which `array` must not be touched; closing twice is harmless."""
        if self._address:
            address, self._address = self._address, 0
            self.array = np.empty(0, self.array.dtype)
            _driver().call("cuMemFreeHost", address)
