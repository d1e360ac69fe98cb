"""The ``trt`` target: TensorRT 10 or newer on a Jetson or data-centre GPU.

An engine fits one GPU, TensorRT and driver, so it is no part of the bundle: it is built on the device at first use and
kept in a cache (`edgeseg.runtimes.tensorrt.plan_cache`).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from edgeseg.bundle import Bundle
from edgeseg.runtimes._base import RuntimeOptions, SessionInfo
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import BuildSettings, build_plan, settings_for
from edgeseg.runtimes.tensorrt.packages import trt_module
from edgeseg.runtimes.tensorrt.plan_cache import PlanKey, default_folder, load_or_build
from edgeseg.runtimes.tensorrt.session import EngineSession, graph_file, load_plan

__all__ = ["open_cached", "open_session", "plans_folder", "precision_in_words", "waiting_mode"]


def open_session(bundle: Bundle, options: RuntimeOptions) -> EngineSession:
    """Open a bundle with TensorRT; the first time an engine is built, which can take minutes.

    Args:
        bundle: An opened bundle; the graph that it holds for TensorRT is used, ``model.onnx`` where it holds none.
        options: Those of `edgeseg.runtimes.engine("trt").options` are used.

    Raises:
        TargetUnavailableError: TensorRT is not installed or too old, there is no such GPU, or CUDA does not start.
        ExportError: TensorRT refuses the graph; quotes its words.
        UnknownNameError: A precision that TensorRT does not have.
    """
    settings = settings_for(bundle, options)
    module = trt_module()
    device = cuda.open_device(options.device, options.wait)
    engine = f"tensorrt {module.__version__}"
    with device.current():
        return open_cached(module, "trt", engine, bundle, settings, device, options)


def open_cached(
    module: ModuleType,
    target: str,
    engine_name: str,
    bundle: Bundle,
    settings: BuildSettings,
    device: cuda.Device,
    options: RuntimeOptions,
    notes: tuple[str, ...] = (),
) -> EngineSession:
    """Open a bundle's graph with an engine from the plan cache, building it where the cache has none.

    Args:
        module: TensorRT's package.
        target: Canonical target name.
        engine_name: Engine and version.
        bundle: The bundle.
        settings: How to build.
        device: The GPU, current in the calling thread.
        options: How to run; `cache_dir` is the folder of the plans.
        notes: Sentences to put before the cache's own.
    """
    graph = graph_file(bundle)
    settings = settings.on(device.gpu)
    key = PlanKey(
        model=bundle.manifest.files[graph],
        gpu=device.gpu.name,
        compute_capability=device.gpu.compute_capability,
        multiprocessors=device.gpu.multiprocessors,
        memory=device.gpu.memory,
        engine=engine_name,
        driver=cuda.driver_version(),
        flags=str(settings),
    )
    cached = load_or_build(
        key,
        plans_folder(options),
        build=lambda: build_plan(module, bundle.file(graph), settings),
        load=lambda plan: load_plan(module, plan),
    )
    info = SessionInfo(
        target=target,
        engine=engine_name,
        device=str(device.gpu),
        precision=precision_in_words(settings),
        notes=(*notes, *cached.notes),
        mode=waiting_mode(options),
    )
    return EngineSession(module, device, cached.engine, info, bundle.manifest.postprocess, options)


def precision_in_words(settings: BuildSettings) -> str:
    """Arithmetic of an engine: ``fp32``, ``tf32``, or the graph's own with what is left in fp32."""
    rest = "tf32" if settings.tf32 else "fp32"
    return rest if settings.precision == "fp32" else f"{settings.precision}, the rest {rest}"


def plans_folder(options: RuntimeOptions) -> Path:
    """Where what is made on this machine is kept."""
    return default_folder() if options.cache_dir is None else Path(options.cache_dir)


def waiting_mode(options: RuntimeOptions) -> tuple[str, ...]:
    """How threads wait for the GPU, where that was asked for."""
    return () if options.wait is None else (f"waits: {options.wait}",)
