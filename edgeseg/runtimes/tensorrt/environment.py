"""Whether TensorRT can run anything on this machine: the driver, and the GPU.

What is wrong with the machine is a `TargetUnavailableError`: building an engine anew, as for a stale plan, would not
help.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from edgeseg.errors import TargetUnavailableError
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import package_name

__all__ = ["check_capability", "check_environment"]

_OLD_DRIVER = re.compile(r"driver version is insufficient|error:? 35\b", re.IGNORECASE)
_UNKNOWN_GPU = re.compile(r"unsupported (sm|gpu|compute|arch)|(sm|gpu|capability)\b.*not supported", re.IGNORECASE)

_DIAGNOSTICS = ("OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "UNSUPPORTED_CC", "INSUFFICIENT_GPU_MEMORY", "CUDA_ERROR")
"""What ``Runtime.get_engine_validity`` says of the machine; the rest is said of the engine."""


def check_capability(module: ModuleType, gpu: cuda.GpuInfo) -> None:
    """Refuse a GPU that TensorRT for RTX does not know.

    Raises:
        TargetUnavailableError: Names the GPU, what the package knows, and what to use.
    """
    known = [name for name in dir(module.ComputeCapability) if re.fullmatch(r"SM\d+", name)]
    words = sorted((f"{name[2:-1]}.{name[-1]}" for name in known), key=float)
    if gpu.compute_capability not in words:
        raise TargetUnavailableError(
            f"{package_name(module)} does not know {gpu}: it runs on compute capability {', '.join(words)}; use the "
            "target trt"
        )


def check_environment(module: ModuleType, runtime: Any, plan: bytes, said: str) -> None:
    """Look why an engine was refused, and refuse the machine where that is why.

    Args:
        module: TensorRT's package.
        runtime: Its ``Runtime``; TensorRT for RTX's can be asked.
        plan: The engine that was refused.
        said: What was logged.

    Raises:
        TargetUnavailableError: The driver is too old, or the GPU is not supported.
    """
    found = _diagnosed(module, runtime, plan)
    if "OLD_CUDA_DRIVER" in found or "OLD_CUDA_RUNTIME" in found or _OLD_DRIVER.search(said):
        raise TargetUnavailableError(
            f"{package_name(module)} needs a newer NVIDIA driver than this one, which serves CUDA "
            f"{cuda.driver_version()}{_quoted(said)}; update the driver, or install the TensorRT of that CUDA version"
        )
    if "UNSUPPORTED_CC" in found or _UNKNOWN_GPU.search(said):
        raise TargetUnavailableError(
            f"{package_name(module)} does not support this GPU{_quoted(said)}; use the target trt, ort or openvino"
        )
    if "INSUFFICIENT_GPU_MEMORY" in found:
        raise TargetUnavailableError(
            f"the engine needs more memory than the GPU has free{_quoted(said)}; close other programs, or export a "
            "smaller --size"
        )
    if "CUDA_ERROR" in found:
        raise TargetUnavailableError(f"CUDA fails on this machine{_quoted(said)}; check it with nvidia-smi")


def _diagnosed(module: ModuleType, runtime: Any, plan: bytes) -> set[str]:
    """Names of what the runtime finds wrong with the machine; empty for one that cannot be asked."""
    ask = getattr(runtime, "get_engine_validity", None)
    if ask is None:
        return set()
    _, bits = ask(plan)
    kinds = module.EngineInvalidityDiagnostics
    return {name for name in _DIAGNOSTICS if int(bits) & int(getattr(kinds, name, 0))}


def _quoted(said: str) -> str:
    return f" ({said})" if said else ""
