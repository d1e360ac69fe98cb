"""Building engines, for TensorRT and TensorRT for RTX: their Python packages have one API under two names.

Graphs are strongly typed: precision is in the ONNX, the builder chooses none. TF32 is switched off unless it is asked
for, because its 10-bit mantissa moves masks. ``trt-rtx`` engines are built at export and need no GPU, ``trt`` engines
on the device.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgeseg.bundle import Bundle
from edgeseg.errors import ExportError, StorageError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.tensorrt.kept_file import KeptFile, UnusableError
from edgeseg.runtimes.tensorrt.packages import TARGETS
from edgeseg.specs import Size
from edgeseg.text import first_line

if TYPE_CHECKING:
    from edgeseg.runtimes.tensorrt import _api as trt
    from edgeseg.runtimes.tensorrt import cuda

__all__ = [
    "BuildSettings",
    "Logger",
    "Profile",
    "build_plan",
    "errors_logged",
    "is_rtx",
    "logger_of",
    "package_name",
    "profile_for",
    "settings_for",
    "started",
]

_T = TypeVar("_T")

_log = logging.getLogger("edgeseg.tensorrt")

_MOST_SCRATCH = 1 << 30
"""Bytes of scratch memory that a build takes at most of memory that the GPU shares with the machine."""

_MOST_LEVEL = 5
"""Of ``IBuilderConfig.builder_optimization_level``."""

_ERRORS = ("INTERNAL_ERROR", "ERROR")


@dataclass(frozen=True)
class Profile:
    """Range of a dynamic graph's input: shapes (N, H, W, C) an engine must take, and the one it is tuned for."""

    smallest: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]

    def __str__(self) -> str:
        low, best, high = ("x".join(map(str, s[1:3])) for s in (self.smallest, self.best, self.largest))
        return f"{self.best[0]} of {low} to {high}, tuned for {best}"


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What shapes a build besides the graph.

    Attributes:
        profile: For a graph with free height and width; None for a fixed one.
        tf32: Let fp32 convolutions run on tensor cores with a 10-bit mantissa. Faster, not exact.
        precision: Of the graph's numbers, for people: the graph is strongly typed.
        workspace: Most scratch memory in bytes; None is the builder's own limit (all of the GPU's).
        level: How hard the builder looks for fast kernels, 0 to 5; None is its default.
        compute_capabilities: TensorRT for RTX only, such as ``("7.5", "8.6")``; empty is the builder's default.
        detailed: Let the engine tell the types of its layers. It runs no slower; the plan is larger.
    """

    profile: Profile | None = None
    tf32: bool = False
    precision: str = "fp32"
    workspace: int | None = None
    level: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    detailed: bool = False

    def __str__(self) -> str:
        parts = ["tf32" if self.tf32 else "f32", self.precision, f"profile {self.profile}", f"scratch {self.workspace}"]
        parts += [] if self.level is None else [f"level {self.level}"]
        parts += ["detailed"] if self.detailed else []
        return ", ".join([*parts, *self.compute_capabilities])

    def on(self, gpu: cuda.GpuInfo) -> BuildSettings:
        """The settings for a GPU: one that shares the machine's memory builds in an eighth of it, 1 GiB at most.

        The builder would try kernels that take all of it, and the machine would kill the process.
        """
        if self.workspace is not None or not gpu.integrated:
            return self
        return replace(self, workspace=min(_MOST_SCRATCH, gpu.memory // 8))


def settings_for(bundle: Bundle, options: RuntimeOptions) -> BuildSettings:
    """How an engine for a bundle is built on this device.

    Raises:
        UnknownNameError: `options.precision` is neither ``f32`` nor ``tf32``.
        UsageError: `options.builder_level` is not 0 to 5.
    """
    word = (options.precision or "f32").lower()
    if word not in ("f32", "tf32"):
        raise UnknownNameError("TensorRT precision", word, ("f32", "tf32"))
    level = options.builder_level
    if level is not None and not 0 <= level <= _MOST_LEVEL:
        raise UsageError(f"builder_level is {level}; it must be 0 (builds fastest) to {_MOST_LEVEL} (runs fastest)")
    manifest = bundle.manifest
    size, divisor, channels = manifest.input_size, manifest.divisor, manifest.input.image_channels
    profile = profile_for(size, divisor, manifest.batch, channels) if manifest.dynamic else None
    asked = next((manifest.precision_of(t) for t in manifest.targets if t in TARGETS), "fp32")
    precision = "fp32" if asked == "bf16" else asked  # bf16 is OpenVINO's
    return BuildSettings(profile=profile, tf32=word == "tf32", precision=precision, level=level)


def profile_for(size: Size, divisor: int, batch: int = 1, channels: int = 3) -> Profile:
    """The range of a dynamic graph's engine: a quarter of `size` (height x width) to twice of it, tuned for `size`."""
    low = tuple(max(divisor, x // 4 // divisor * divisor) for x in size)
    high = tuple(2 * x for x in size)
    return Profile((batch, *low, channels), (batch, *size, channels), (batch, *high, channels))


class Logger(Protocol):
    """A TensorRT logger that keeps the errors it was told."""

    errors: deque[str]


@functools.lru_cache(maxsize=4)
def logger_of(module: ModuleType) -> Logger:
    """The one logger of a TensorRT package in this process.

    TensorRT keeps the first logger it was given for ever and ignores later ones: there is one, and it is never freed.
    """

    def log(self: Logger, severity: trt.Severity, message: str) -> None:
        if severity.name in _ERRORS:
            self.errors.append(message.strip())
        if severity.name != "VERBOSE":
            _log.debug("%s", message.strip())  # errors too: the sentence that edgeseg raises quotes them

    made: Logger = type("CollectingLogger", (module.ILogger,), {"log": log, "errors": deque(maxlen=50)})()
    return made


def errors_logged(logger: Logger) -> str:
    """The errors logged since the last call, joined; empty where there were none."""
    lines = list(dict.fromkeys(logger.errors))
    logger.errors.clear()
    return "; ".join(line[:400] for line in lines[-3:])


def build_plan(module: ModuleType, onnx_path: Path, settings: BuildSettings, timings: KeptFile | None = None) -> bytes:
    """Build a serialised engine of an ONNX file.

    Args:
        module: ``tensorrt``, or TensorRT for RTX's package.
        onnx_path: The graph.
        settings: See `BuildSettings`.
        timings: Where the times of kernels on this GPU are kept between builds. None keeps none: for TensorRT for RTX,
            which would ask for a GPU.

    Raises:
        ExportError: The parser or the builder refused the graph; quotes all it said.
    """
    logger = logger_of(module)
    errors_logged(logger)
    builder = started(module, lambda: module.Builder(logger))
    network = builder.create_network(_network_flags(module))
    parser = module.OnnxParser(network, logger)
    if not parser.parse(onnx_path.read_bytes(), str(onnx_path)):
        raise ExportError(f"{package_name(module)} cannot parse '{onnx_path.name}': {_parser_errors(parser)}")
    config = _configure(module, builder, network, settings)
    cache = None if timings is None else _timing_cache(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = errors_logged(logger) or "it gave no reason"
        raise ExportError(f"{package_name(module)} cannot build an engine of '{onnx_path.name}': {said}")
    if timings is not None and cache is not None:
        _keep_timings(cache, timings)
    return bytes(plan)


def _timing_cache(config: trt.BuilderConfig, timings: KeptFile) -> trt.TimingCache | None:
    """Let a build use the times of earlier ones; what cannot be used is measured again, and logged."""
    data, why = b"", timings.refusal()
    try:
        data = b"" if why else timings.read() or b""
    except UnusableError as error:
        why = f"the kept times of kernels: {timings.path.name[:12]} {error}{error.advice}"
    cache = config.create_timing_cache(data)
    if data and (cache is None or not config.set_timing_cache(cache, False)):
        data, why = b"", "the kept times of kernels do not fit this machine any more"
        cache = config.create_timing_cache(data)
    if why:
        _log.warning("%s; they are timed again", why)
    taken = bool(data) or (cache is not None and config.set_timing_cache(cache, False))
    return cache if taken else None


def _keep_timings(cache: trt.TimingCache, timings: KeptFile) -> None:
    data = cache.serialize()
    try:
        if data is not None and not timings.refusal():
            timings.write(bytes(data))
    except StorageError as error:
        _log.warning("the times of kernels are not kept for later builds: %s", error)


def started(module: ModuleType, make: Callable[[], _T]) -> _T:
    """Make a builder or a runtime.

    Raises:
        TargetUnavailableError: It cannot be made, since CUDA does not start.
    """
    try:
        return make()
    except TypeError as error:  # pybind11's word for a constructor that gave a null pointer
        said = errors_logged(logger_of(module)) or first_line(error)
        raise TargetUnavailableError(
            f"{package_name(module)} does not start on this machine: {said}; look whether the NVIDIA driver is new "
            "enough for its CUDA version (edgeseg doctor)"
        ) from error


def is_rtx(module: ModuleType) -> bool:
    """Tell TensorRT for RTX from TensorRT."""
    return "rtx" in module.__name__


def package_name(module: ModuleType) -> str:
    """Name a TensorRT package with its version, for messages."""
    return f"{'TensorRT-RTX' if is_rtx(module) else 'TensorRT'} {module.__version__}"


def _network_flags(module: ModuleType) -> int:
    """Strong typing, and explicit batch where it can still be asked for (TensorRT 10; 11 knows nothing else)."""
    names = ("EXPLICIT_BATCH", "STRONGLY_TYPED")
    known = (getattr(module.NetworkDefinitionCreationFlag, name, None) for name in names)
    return sum(1 << int(flag) for flag in known if flag is not None)


def _parser_errors(parser: trt.OnnxParser) -> str:
    """Every parser error with the node it belongs to, where the parser tells."""
    told = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        number = f"node {error.node()}" if error.node() >= 0 else ""
        name, operator = (getattr(error, key, str)() for key in ("node_name", "node_operator"))
        where = f"{operator} {name or number}".strip()
        told.append(f"{where}: {' '.join(error.desc().split())[:400]}".removeprefix(": "))
    return "; ".join(dict.fromkeys(told)) or "it gave no reason"


def _configure(
    module: ModuleType, builder: trt.Builder, network: trt.Network, settings: BuildSettings
) -> trt.BuilderConfig:
    config = builder.create_builder_config()
    flags = module.BuilderFlag
    if not settings.tf32 and hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)
    if settings.detailed:
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if settings.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.level is not None:
        config.builder_optimization_level = settings.level
    if settings.profile is not None:
        profile = builder.create_optimization_profile()
        wanted = settings.profile
        profile.set_shape(network.get_input(0).name, wanted.smallest, wanted.best, wanted.largest)
        config.add_optimization_profile(profile)
    _set_capabilities(module, config, settings.compute_capabilities)
    return config


def _set_capabilities(module: ModuleType, config: trt.BuilderConfig, wanted: tuple[str, ...]) -> None:
    if not wanted:
        return
    known = {f"{n[2:-1]}.{n[-1]}": n for n in dir(module.ComputeCapability) if n.startswith("SM") and n[2:].isdigit()}
    for word in wanted:
        if word not in known:
            raise UnknownNameError("compute capability", word, known)
    config.num_compute_capabilities = len(wanted)
    for index, word in enumerate(wanted):
        config.set_compute_capability(getattr(module.ComputeCapability, known[word]), index)
