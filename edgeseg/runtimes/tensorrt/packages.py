"""TensorRT's Python packages, which have one API under several names."""

from __future__ import annotations

from types import ModuleType

from edgeseg._optional import is_installed, require
from edgeseg.errors import TargetUnavailableError

__all__ = ["GRAPH", "TARGETS", "TRT_PACKAGES", "check_version", "rtx_module", "trt_module"]

TARGETS = ("trt", "trt-rtx")
"""Targets that share a graph."""

GRAPH = "tensorrt/model.onnx"
"""Where that graph lies in a bundle, where it is another than ``model.onnx``."""

TRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
"""Distributions that bring ``tensorrt``."""

ADVICE = (
    "on a Jetson it comes with JetPack (make the virtual environment with --system-site-packages), elsewhere install "
    "it with: pip install 'edgeseg[tensorrt]'"
)
"""How to get TensorRT, which pip alone does not bring everywhere."""


OLDEST = 10
"""Major version of the oldest TensorRT that is taken.

The parsers before it take the axes of a reduction for an attribute. From opset 18 on they are an input, which such a
parser drops: it reduces over all axes without a word.
"""


def trt_module() -> ModuleType:
    """Import TensorRT's package.

    Raises:
        TargetUnavailableError: It is not installed, or too old; says how to get it.
    """
    module = require("tensorrt", extra="tensorrt", why="the trt target", advice=ADVICE)
    check_version(str(module.__version__))
    return module


def check_version(version: str) -> None:
    """Refuse a TensorRT that misreads graphs of today's opsets.

    Raises:
        TargetUnavailableError: Below 10.0.
    """
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST:
        raise TargetUnavailableError(
            f"TensorRT {version} is installed, and the trt target needs 10.0 or newer: older ones drop the axes of "
            "reductions and compute something else; on a Jetson update to JetPack 6.1 or newer, elsewhere run pip "
            "install --upgrade 'edgeseg[tensorrt]', or use the target ort"
        )


def rtx_module() -> ModuleType:
    """Import TensorRT-RTX's package: ``tensorrt_rtx`` from NVIDIA, or ``tensorrt_rtx_bindings`` from PyPI.

    Raises:
        TargetUnavailableError: It is not installed; says how to get it.
    """
    name = "tensorrt_rtx" if is_installed("tensorrt_rtx") else "tensorrt_rtx_bindings"
    return require(name, extra="tensorrt-rtx", why="the trt-rtx target")
