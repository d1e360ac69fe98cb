"""The ``trt-rtx`` target: TensorRT for RTX on desktop GPUs; the engine is built at export, on any machine.

One engine serves compute capability 8.0, 8.6, 8.9 and 12.0; its kernels are made on the GPU when it is loaded.
An engine belongs to one version of TensorRT-RTX, which is in its name: ``tensorrt/rtx-1.7.1.116.engine``.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgeseg.bundle import Bundle
from edgeseg.files import storage_errors, write_bytes
from edgeseg.runtimes._base import RuntimeOptions, SessionInfo
from edgeseg.runtimes.engine import BuildRequest
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import BuildSettings, Profile, build_plan, settings_for
from edgeseg.runtimes.tensorrt.environment import check_capability
from edgeseg.runtimes.tensorrt.packages import rtx_module
from edgeseg.runtimes.tensorrt.plan_cache import PlanRefusedError
from edgeseg.runtimes.tensorrt.session import EngineSession, load_plan
from edgeseg.runtimes.tensorrt.trt import open_cached, precision_in_words, session_of

__all__ = ["EngineReport", "build", "build_engine", "engine_name", "open_session"]

_ENGINE = re.compile(r"^tensorrt/rtx-(?P<version>[0-9][0-9.]*[0-9])\.engine$")


@dataclass(frozen=True)
class EngineReport:
    """What a build made.

    Attributes:
        path: The engine file.
        version: Of TensorRT-RTX.
        size: Bytes.
        seconds: The build took.
        compute_capabilities: Asked for; empty is the builder's default.
    """

    path: Path
    version: str
    size: int
    seconds: float
    compute_capabilities: tuple[str, ...] = ()


def engine_name(version: str) -> str:
    """Path of an engine inside a bundle, such as ``"tensorrt/rtx-1.7.1.116.engine"``."""
    return f"tensorrt/rtx-{version}.engine"


def build(request: BuildRequest) -> None:
    """Build the engine of a bundle into its folder ``tensorrt/``.

    Raises:
        EdgesegError: As `build_engine`.
    """
    folder = request.folder / "tensorrt"
    with storage_errors(request.folder):
        folder.mkdir(exist_ok=True)
    settings = settings_for(Bundle(request.folder, request.manifest), RuntimeOptions())
    build_engine(request.graph, folder, profile=settings.profile)


def build_engine(
    onnx_path: Path,
    folder: Path,
    *,
    profile: Profile | None = None,
    tf32: bool = False,
    compute_capabilities: tuple[str, ...] = (),
) -> EngineReport:
    """Build an engine; needs no GPU.

    Args:
        onnx_path: The graph, whose uint8 input goes into a cast.
        folder: The bundle's ``tensorrt`` folder; the file is named after the version.
        profile: For a graph with free height and width.
        tf32: Faster fp32 convolutions with a 10-bit mantissa; not exact.
        compute_capabilities: Such as ``("7.5", "8.6")``. By default the engine runs on 8.0, 8.6, 8.9 and 12.0; 7.5
            (Turing) must be asked for.

    Raises:
        TargetUnavailableError: TensorRT-RTX is not installed.
        ExportError: It refuses the graph; quotes its words.
        UnknownNameError: A compute capability it does not know.
        StorageError: Writing failed.
    """
    module = rtx_module()
    started = time.perf_counter()
    settings = BuildSettings(profile=profile, tf32=tf32, compute_capabilities=compute_capabilities)
    plan = build_plan(module, onnx_path, settings)
    path = folder / Path(engine_name(str(module.__version__))).name
    write_bytes(path, plan)
    seconds = time.perf_counter() - started
    return EngineReport(path, str(module.__version__), len(plan), seconds, compute_capabilities)


def open_session(bundle: Bundle, options: RuntimeOptions) -> EngineSession:
    """Open a bundle with TensorRT for RTX.

    The bundle's own engine is used where it was built by the installed version; else one is built into the plan cache,
    and the session's notes say so.

    Args:
        bundle: A bundle exported for ``trt-rtx`` or ``trt``.
        options: Those of `edgeseg.runtimes.engine("trt-rtx").options` are used.

    Raises:
        TargetUnavailableError: TensorRT-RTX is not installed, there is no such GPU, it does not know the GPU, or CUDA
            does not start.
        ExportError: TensorRT-RTX refuses the graph; quotes its words.
        UnknownNameError: A precision that TensorRT-RTX does not have.
    """
    settings = settings_for(bundle, options)
    module = rtx_module()
    device = cuda.open_device(options.device, options.wait)
    check_capability(module, device.gpu)
    with device.current():
        return _open(module, bundle, settings, device, options)


def _open(
    module: ModuleType, bundle: Bundle, settings: BuildSettings, device: cuda.Device, options: RuntimeOptions
) -> EngineSession:
    version = str(module.__version__)
    engine, note = None, _foreign(bundle, version)
    if not note and not settings.tf32:
        try:
            engine = load_plan(module, bundle.read(engine_name(version)))
        except PlanRefusedError as error:
            note = f"the bundle's engine does not run on {device.gpu} ({error}), so one was built on this machine"
    if engine is None:
        notes = (note,) if note else ()
        return open_cached(module, "trt-rtx", f"tensorrt-rtx {version}", bundle, settings, device, options, notes)
    info = SessionInfo(
        target="trt-rtx",
        engine=f"tensorrt-rtx {version}",
        device=str(device.gpu),
        precision=precision_in_words(settings),
    )
    known = engine, bundle.manifest.files[engine_name(version)]
    return session_of(module, device, known, info, bundle.manifest.postprocess, options)


def _foreign(bundle: Bundle, version: str) -> str:
    """Why the bundle's own engine cannot be used, in a sentence; empty where it can."""
    held = [match["version"] for match in map(_ENGINE.match, sorted(bundle.manifest.files)) if match]
    if version in held:
        return ""
    if not held:
        return "the bundle holds no TensorRT-RTX engine, so one was built on this machine"
    return (
        f"the bundle's engine is for TensorRT-RTX {' and '.join(held)}, installed is {version}, so one was built on "
        "this machine"
    )
