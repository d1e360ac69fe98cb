"""TensorRT's Python packages, which have one API under several names."""

from __future__ import annotations

from types import ModuleType

from edgeseg._optional import is_installed, require

__all__ = ["TARGETS", "rtx_module", "trt_module"]

TARGETS = ("trt", "trt-rtx")
"""Targets that share ``model_labels.onnx``."""

ADVICE = (
    "on a Jetson it comes with JetPack (make the virtual environment with --system-site-packages), elsewhere install "
    "it with: pip install 'edgeseg[tensorrt]'"
)
"""How to get TensorRT, which pip alone does not bring everywhere."""


def trt_module() -> ModuleType:
    """Import TensorRT's package.

    Raises:
        TargetUnavailableError: It is not installed; says how to get it.
    """
    return require("tensorrt", extra="tensorrt", why="the trt target", advice=ADVICE)


def rtx_module() -> ModuleType:
    """Import TensorRT-RTX's package: ``tensorrt_rtx`` from NVIDIA, or ``tensorrt_rtx_bindings`` from PyPI.

    Raises:
        TargetUnavailableError: It is not installed; says how to get it.
    """
    name = "tensorrt_rtx" if is_installed("tensorrt_rtx") else "tensorrt_rtx_bindings"
    return require(name, extra="tensorrt-rtx", why="the trt-rtx target")
