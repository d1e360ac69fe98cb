"""The ``trt`` target: TensorRT 10 or newer on a Jetson or data-centre GPU.

An engine fits one GPU, TensorRT and driver, so it is no part of the bundle: it is built on the device at first use and
kept in a cache (`edgeseg.runtimes.tensorrt.plan_cache`).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from edgeseg.bundle import Bundle
from edgeseg.runtimes._base import RuntimeOptions, SessionInfo
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import BuildSettings, build_plan, is_rtx, settings_for
from edgeseg.runtimes.tensorrt.contexts import Contexts, RtxContexts
from edgeseg.runtimes.tensorrt.kept_file import KeptFile
from edgeseg.runtimes.tensorrt.packages import trt_module
from edgeseg.runtimes.tensorrt.plan_cache import PlanKey, default_folder, load_or_build
from edgeseg.runtimes.tensorrt.session import EngineSession, graph_file, load_plan

if TYPE_CHECKING:
    from edgeseg.runtimes.tensorrt import _api as trt
    from edgeseg.specs import PostprocessSpec

__all__ = ["open_cached", "open_session", "precision_in_words", "session_of"]


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
    key = key_of(device.gpu, engine_name, bundle.manifest.files[graph], str(settings))
    timings = None if is_rtx(module) else _kept(replace(key, model="", flags="timings"), ".timings", options)
    cached = load_or_build(
        key,
        plans_folder(options),
        build=lambda: build_plan(module, bundle.file(graph), settings, timings),
        load=lambda plan: (load_plan(module, plan), hashlib.sha256(plan).hexdigest()),
    )
    info = SessionInfo(
        target=target,
        engine=engine_name,
        device=str(device.gpu),
        precision=precision_in_words(settings),
        notes=(*notes, *cached.notes),
    )
    return session_of(module, device, cached.engine, info, bundle.manifest.postprocess, options)


def session_of(
    module: ModuleType,
    device: cuda.Device,
    engine: tuple[trt.CudaEngine, str],
    info: SessionInfo,
    postprocess: PostprocessSpec,
    options: RuntimeOptions,
) -> EngineSession:
    """Make a session of an engine.

    Args:
        module: TensorRT's package.
        device: The GPU, current in the calling thread.
        engine: The engine, and the SHA-256 of its bytes.
        info: What runs.
        postprocess: The recorded postprocessing of the network.
        options: How to run.
    """
    if options.wait is not None:
        info = replace(info, mode=(*info.mode, f"waits: {options.wait}"))
    contexts = Contexts(engine[0])
    if is_rtx(module):
        kept = _kept(key_of(device.gpu, info.engine, engine[1], "kernels"), ".kernels", options)
        contexts = RtxContexts(module, engine[0], kept, graphs=options.cuda_graph is not False)
    return EngineSession(module, device, engine[0], info, postprocess, options, contexts)


def key_of(gpu: cuda.GpuInfo, engine_name: str, model: str, flags: str) -> PlanKey:
    """The key of what is made on this machine of a file with the hash `model`."""
    return PlanKey(
        model=model,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        multiprocessors=gpu.multiprocessors,
        memory=gpu.memory,
        engine=engine_name,
        driver=cuda.driver_version(),
        flags=flags,
    )


def _kept(key: PlanKey, suffix: str, options: RuntimeOptions) -> KeptFile:
    return KeptFile(plans_folder(options) / f"{key.digest()}{suffix}", asdict(key))


def precision_in_words(settings: BuildSettings) -> str:
    """Arithmetic of an engine: ``fp32``, ``tf32``, or the graph's own with what is left in fp32."""
    rest = "tf32" if settings.tf32 else "fp32"
    return rest if settings.precision == "fp32" else f"{settings.precision}, the rest {rest}"


def plans_folder(options: RuntimeOptions) -> Path:
    """Where what is made on this machine is kept."""
    return default_folder() if options.cache_dir is None else Path(options.cache_dir)
