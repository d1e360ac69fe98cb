"""The ``openvino`` target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg._optional import require
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.engine import BuildRequest, Engine, Probe, Standalone

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeseg.bundle import Bundle
    from edgeseg.runtimes.openvino.session import OpenVinoSession

__all__ = ["OPENVINO"]


def _open(bundle: Bundle, options: RuntimeOptions) -> OpenVinoSession:
    from edgeseg.runtimes.openvino.session import open_session

    return open_session(bundle, options)


def _probe() -> Probe:
    from edgeseg.runtimes.openvino.session import release, shared_core

    ov = require("openvino", extra="openvino", why="the openvino target")
    devices = tuple(str(device) for device in shared_core().available_devices)
    version = f"openvino {release(ov)}"
    if not devices:
        return Probe(False, version, reason="OpenVINO finds no device on this machine")
    return Probe(True, version, devices)


def _requires() -> None:
    require("openvino", extra="openvino", why="the openvino target")


def _build(request: BuildRequest) -> None:
    from edgeseg.runtimes.openvino.build import build

    build(request)


def _convert(onnx_path: Path, out_xml: Path) -> None:
    from edgeseg.runtimes.openvino.build import convert

    convert(onnx_path, out_xml)


def _runner(file: Path) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    from edgeseg.runtimes.openvino.session import runner

    return runner(file)


OPENVINO = Engine(
    name="openvino",
    aliases=("ov",),
    description="OpenVINO (CPU, Intel GPU and NPU)",
    needs="`edgeseg[openvino]`",
    extra="openvino",
    options={
        "threads": "threads of the engine on the CPU; by default as many as OpenVINO takes",
        "device": "CPU (default), GPU, NPU or AUTO",
        "hint": "latency (default) or throughput",
        "precision": "arithmetic of the fp32 parts: f32 (default, exact), bf16 or f16",
        "cache_dir": "folder of compiled graphs; by default none is kept",
    },
    files=("openvino/",),
    packages=("openvino",),
    lowers_to=("int8", "bf16"),
    open=_open,
    probe=_probe,
    requires=_requires,
    build=_build,
    standalone=Standalone(file="labels/openvino.xml", convert=_convert, runner=_runner),
)
