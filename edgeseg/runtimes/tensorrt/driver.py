"""The driver's library (``libcuda``) by ctypes: its functions with their types, and its errors as one sentence."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from pathlib import Path
from typing import Any, TypeAlias

from edgeseg.errors import EdgesegError, TargetUnavailableError

__all__ = ["HIDDEN", "Driver", "driver"]

_NO_DEVICE, _MISMATCH, _UNKNOWN = 100, 803, 999  # CUresult
_TEGRA = Path("/etc/nv_tegra_release")

_PTR, _SIZE, _INT, _UINT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint
_U64 = ctypes.c_uint64  # CUdeviceptr
_OUT = ctypes.c_void_p  # a pointer the call writes through
_Number: TypeAlias = type[ctypes.c_int] | type[ctypes.c_size_t] | type[ctypes.c_uint64] | type[ctypes.c_void_p]

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
    "cuDevicePrimaryCtxSetFlags_v2": (_INT, _UINT),
    "cuCtxPushCurrent_v2": (_PTR,),
    "cuCtxPopCurrent_v2": (_OUT,),
    "cuMemGetInfo_v2": (_OUT, _OUT),
    "cuMemAlloc_v2": (_OUT, _SIZE),
    "cuMemFree_v2": (_U64,),
    "cuMemHostAlloc": (_OUT, _SIZE, _UINT),
    "cuMemHostGetDevicePointer_v2": (_OUT, _PTR, _UINT),
    "cuMemFreeHost": (_PTR,),
    "cuMemcpyHtoDAsync_v2": (_U64, _PTR, _SIZE, _PTR),
    "cuMemcpyDtoHAsync_v2": (_PTR, _U64, _SIZE, _PTR),
    "cuMemsetD32Async": (_U64, _UINT, _SIZE, _PTR),
    "cuStreamCreate": (_OUT, _UINT),
    "cuStreamSynchronize": (_PTR,),
    "cuStreamDestroy_v2": (_PTR,),
    "cuStreamBeginCapture_v2": (_PTR, _INT),
    "cuStreamEndCapture": (_PTR, _OUT),
    "cuGraphInstantiateWithFlags": (_OUT, _PTR, ctypes.c_ulonglong),
    "cuGraphLaunch": (_PTR, _PTR),
    "cuGraphExecDestroy": (_PTR,),
    "cuGraphDestroy": (_PTR,),
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

_NEWER = ("cuGraphInstantiateWithFlags", "cuDevicePrimaryCtxSetFlags_v2")
"""Functions that a driver may lack: what calls them can be left out. The rest is in CUDA 10.1 and newer."""


def _library_names() -> tuple[str, ...]:
    if sys.platform == "win32":
        return ("nvcuda.dll",)
    return ("libcuda.so.1", "libcuda.so", "/usr/lib/wsl/lib/libcuda.so.1")


class Driver:
    """The driver's library with its functions typed; a call that fails raises one sentence."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[str, Any] = {}
        self._contexts: dict[int, int] = {}
        self._lock = threading.Lock()
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name, None)
            if function is None and name in _NEWER:
                continue
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
        """Call a function and return its CUresult.

        Raises:
            EdgesegError: The driver is older than the function.
        """
        if name not in self._functions:
            raise EdgesegError(f"the NVIDIA driver here has no {name}")
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
def driver() -> Driver:
    """The initialised driver.

    Raises:
        TargetUnavailableError: No NVIDIA driver, or it does not start.
    """
    for name in _library_names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        opened = Driver(library)
        status = opened.status("cuInit", 0)
        if status != 0:
            raise TargetUnavailableError(_start_failure(status, opened.words(status)))
        return opened
    raise TargetUnavailableError(
        "this machine has no NVIDIA driver (libcuda was not found), so no GPU can be used; "
        "install the driver, or choose the target ort or openvino"
    )


def _start_failure(status: int, words: str) -> str:
    """Why the driver does not start, and what to do."""
    if status == _NO_DEVICE and "CUDA_VISIBLE_DEVICES" in os.environ:
        return HIDDEN
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


HIDDEN = (
    "the NVIDIA driver finds no GPU that CUDA_VISIBLE_DEVICES leaves visible; set it to the number of a GPU, unset it, "
    "or choose the target ort or openvino"
)
