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

__all__ = ["open_cached", "open_session", "precision_in_words"]


def open_session(bundle: Bundle, options: RuntimeOptions) -> EngineSession:
    """Open a bundle with TensorRT; the first time an engine is built, which can take minutes.

    Args:
        bundle: An opened bundle; the graph that it holds for TensorRT is used, ``model.onnx`` where it holds none.
        options: `device` (the GPU's number), `precision` (``f32`` or ``tf32``) and `cache_dir` are used.

    Raises:
        TargetUnavailableError: TensorRT is not installed or too old, there is no such GPU, or CUDA does not start.
        ExportError: TensorRT refuses the graph; quotes its words.
        UnknownNameError: A precision that TensorRT does not have.
    """
    settings = settings_for(bundle, options)
    module = trt_module()
    device = cuda.open_device(options.device)
    engine = f"tensorrt {module.__version__}"
    with device.current():
        return open_cached(module, "trt", engine, bundle, settings, device, options.cache_dir)


def open_cached(
    module: ModuleType,
    target: str,
    engine_name: str,
    bundle: Bundle,
    settings: BuildSettings,
    device: cuda.Device,
    cache_dir: str | None,
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
        cache_dir: Folder of the plans, None for the default.
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
        default_folder() if cache_dir is None else Path(cache_dir),
        build=lambda: build_plan(module, bundle.file(graph), settings),
        load=lambda plan: load_plan(module, plan),
    )
    info = SessionInfo(
        target=target,
        engine=engine_name,
        device=str(device.gpu),
        precision=precision_in_words(settings),
        notes=(*notes, *cached.notes),
    )
    return EngineSession(module, device, cached.engine, info, bundle.manifest.postprocess)


def precision_in_words(settings: BuildSettings) -> str:
    """Arithmetic of an engine: ``fp32``, ``tf32``, or the graph's own with what is left in fp32."""
    rest = "tf32" if settings.tf32 else "fp32"
    return rest if settings.precision == "fp32" else f"{settings.precision}, the rest {rest}"
