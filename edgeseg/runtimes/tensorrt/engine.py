"""The ``trt`` and ``trt-rtx`` targets: TensorRT, and TensorRT for RTX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg._optional import is_installed, package_version
from edgeseg.errors import TargetUnavailableError
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.engine import BuildRequest, Engine, Probe
from edgeseg.runtimes.tensorrt.packages import GRAPH, TRT_PACKAGES, check_version, rtx_module, trt_module

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.graph.passes import Pass
    from edgeseg.runtimes.tensorrt.session import EngineSession

__all__ = ["TRT", "TRT_RTX"]

_RTX_PACKAGES = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx")

_OPTIONS = {
    "device": "the GPU's number; by default the first",
    "precision": "arithmetic of the fp32 parts: f32 (default, exact) or tf32",
    "cache_dir": "folder of the engines built here; by default ~/.cache/edgeseg/plans",
    "cuda_graph": "start a frame by one call (default) or each part by itself",
    "zero_copy": "use image and labels where the host has them; by default on a Jetson",
    "wait": "how a thread waits for the GPU: auto, spin, yield or block; by default as the process has it",
}


_TRT_OPTIONS = {
    **_OPTIONS,
    "builder_level": "how hard TensorRT looks for fast kernels while it builds, 0 to 5; by default TensorRT's own, 3",
}


def _open_trt(bundle: Bundle, options: RuntimeOptions) -> EngineSession:
    from edgeseg.runtimes.tensorrt.trt import open_session

    return open_session(bundle, options)


def _open_rtx(bundle: Bundle, options: RuntimeOptions) -> EngineSession:
    from edgeseg.runtimes.tensorrt.rtx import open_session

    return open_session(bundle, options)


def _passes(precision: str) -> tuple[type[Pass], ...]:
    from edgeseg.runtimes.tensorrt.passes import HALF_PASSES, INT8_PASSES

    return {"int8": INT8_PASSES, "fp16": HALF_PASSES}.get(precision, ())


def _probe_trt() -> Probe:
    version = package_version(*TRT_PACKAGES)
    if not version or not is_installed("tensorrt"):  # without it, or where the version is known by the module only
        version = str(trt_module().__version__)
    check_version(version)
    return _with_gpu(f"tensorrt {version}")


def _probe_rtx() -> Probe:
    return _with_gpu(f"tensorrt-rtx {package_version(*_RTX_PACKAGES) or rtx_module().__version__}")


def _with_gpu(engine: str) -> Probe:
    """Look for a GPU, which an installed package needs besides."""
    from edgeseg.runtimes.tensorrt import cuda

    try:
        gpus = cuda.list_gpus()
    except TargetUnavailableError as error:
        return Probe.of_error(error, engine)
    if not gpus:
        return Probe(False, engine, reason="the NVIDIA driver finds no GPU")
    numbers = tuple(str(number) for number in range(len(gpus)))
    return Probe(True, engine, tuple(map(str, gpus)), device_words=numbers)


def _require_rtx() -> None:
    rtx_module()


def _build_rtx(request: BuildRequest) -> None:
    from edgeseg.runtimes.tensorrt.rtx import build

    build(request)


TRT = Engine(
    name="trt",
    aliases=("tensorrt", "engine"),
    description="TensorRT (Jetson and data-centre GPUs; engine built on the device)",
    needs="TensorRT 10.0 to 11.x on the device; the engine is built at first use and cached",
    extra="tensorrt",
    options=_TRT_OPTIONS,
    files=(GRAPH, "model.onnx"),
    graph=GRAPH,
    needs_gpu=True,
    lowers_to=("int8", "fp16"),
    signed_int8=True,
    passes=_passes,
    open=_open_trt,
    probe=_probe_trt,
)

TRT_RTX = Engine(
    name="trt-rtx",
    aliases=("rtx", "tensorrt-rtx", "trt_rtx"),
    description="TensorRT for RTX (desktop GPUs; engine built at export, without a GPU)",
    needs="`edgeseg[tensorrt-rtx]`; engines are built at export, without a GPU",
    extra="tensorrt-rtx",
    options=_OPTIONS,
    files=("tensorrt/*.engine",),
    graph=GRAPH,
    packages=("tensorrt-rtx-cu13-bindings",),
    needs_gpu=True,
    lowers_to=("int8", "fp16"),
    signed_int8=True,
    passes=_passes,
    open=_open_rtx,
    probe=_probe_rtx,
    requires=_require_rtx,
    build=_build_rtx,
)
