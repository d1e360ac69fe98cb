"""What TensorRT and TensorRT for RTX share: their Python packages have one API under two names.

Graphs are strongly typed: precision is in the ONNX, the builder chooses none. TF32 is switched off unless it is asked
for, because its 10-bit mantissa moves masks. Tensors are addressed by name (TensorRT 8.5 and newer).
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import MODEL, MODEL_LABELS, Bundle
from edgeseg.errors import BundleError, EdgesegError, ExportError, InputError, UnknownNameError
from edgeseg.runtimes._base import CLOSED, RuntimeOptions, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.plan_cache import PlanRefusedError
from edgeseg.specs import Size
from edgeseg.targets import GRAPH_LABEL_TARGETS
from edgeseg.text import one_line

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = [
    "BuildSettings",
    "EngineSession",
    "Profile",
    "build_plan",
    "graph_file",
    "load_plan",
    "profile_for",
    "settings_for",
]

_log = logging.getLogger("edgeseg.tensorrt")

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

_ERRORS = ("INTERNAL_ERROR", "ERROR")


@dataclass(frozen=True)
class Profile:
    """Range of a dynamic graph's input: shapes (N, H, W, 3) an engine must take, and the one it is tuned for."""

    smallest: tuple[int, ...]
    best: tuple[int, ...]
    largest: tuple[int, ...]

    def __str__(self) -> str:
        low, best, high = ("x".join(map(str, s[1:3])) for s in (self.smallest, self.best, self.largest))
        return f"{low} to {high}, tuned for {best}"


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What shapes a build besides the graph.

    Attributes:
        profile: For a graph with free height and width; None for a fixed one.
        tf32: Let fp32 convolutions run on tensor cores with a 10-bit mantissa. Faster, not exact.
        precision: Of the graph's numbers; only TensorRT 8 and 9 need to be told.
        workspace: Most scratch memory in bytes; None is the builder's own limit (all of the GPU's).
        compute_capabilities: TensorRT for RTX only, such as ``("7.5", "8.6")``; empty is the builder's default.
    """

    profile: Profile | None = None
    tf32: bool = False
    precision: str = "fp32"
    workspace: int | None = None
    compute_capabilities: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = ["tf32" if self.tf32 else "f32", self.precision, f"profile {self.profile}"]
        return ", ".join([*parts, *self.compute_capabilities])


def settings_for(bundle: Bundle, options: RuntimeOptions) -> BuildSettings:
    """How an engine for a bundle is built on this device.

    Raises:
        UnknownNameError: `options.precision` is neither ``f32`` nor ``tf32``.
    """
    word = (options.precision or "f32").lower()
    if word not in ("f32", "tf32"):
        raise UnknownNameError("TensorRT precision", word, ("f32", "tf32"))
    manifest = bundle.manifest
    profile = profile_for(manifest.input_size, manifest.divisor, manifest.batch) if manifest.dynamic else None
    asked = next((manifest.precision_of(t) for t in manifest.targets if t in GRAPH_LABEL_TARGETS), "fp32")
    precision = "fp32" if asked == "bf16" else asked  # bf16 is OpenVINO's
    return BuildSettings(profile=profile, tf32=word == "tf32", precision=precision)


def profile_for(size: Size, divisor: int, batch: int = 1) -> Profile:
    """The range of a dynamic graph's engine: a quarter of `size` (height x width) to twice of it, tuned for `size`."""
    low = tuple(max(divisor, x // 4 // divisor * divisor) for x in size)
    high = tuple(2 * x for x in size)
    return Profile((batch, *low, 3), (batch, *size, 3), (batch, *high, 3))


def graph_file(bundle: Bundle) -> str:
    """The bundle's graph for a GPU: the one that ends in labels where it is there.

    Raises:
        BundleError: The bundle was exported for no GPU target, so that nothing was proven for one.
    """
    if GRAPH_LABEL_TARGETS.isdisjoint(bundle.manifest.targets):
        raise BundleError(
            f"bundle '{one_line(bundle.path)}' was exported for {', '.join(bundle.manifest.targets)}; "
            "export it again with --target trt or trt-rtx"
        )
    return MODEL_LABELS if bundle.has(MODEL_LABELS) else MODEL


class _Logger(Protocol):
    """A TensorRT logger that keeps the errors it was told."""

    errors: deque[str]


@functools.lru_cache(maxsize=4)
def logger_of(module: ModuleType) -> _Logger:
    """The one logger of a TensorRT package in this process.

    TensorRT keeps the first logger it was given for ever and ignores later ones: there is one, and it is never freed.
    """

    def log(self: _Logger, severity: trt.ILogger.Severity, message: str) -> None:
        if severity.name in _ERRORS:
            self.errors.append(message.strip())
        level = {"WARNING": logging.INFO, "INFO": logging.DEBUG, "VERBOSE": logging.NOTSET}.get(severity.name, 30)
        if level:
            _log.log(level, "%s", message.strip())

    made: _Logger = type("CollectingLogger", (module.ILogger,), {"log": log, "errors": deque(maxlen=50)})()
    return made


def _drain(logger: _Logger) -> str:
    """The errors logged since the last call, joined; empty where there were none."""
    lines = list(dict.fromkeys(logger.errors))
    logger.errors.clear()
    return "; ".join(line[:400] for line in lines[-3:])


def build_plan(module: ModuleType, onnx_path: Path, settings: BuildSettings) -> bytes:
    """Build a serialised engine of an ONNX file.

    Args:
        module: ``tensorrt``, or TensorRT for RTX's package.
        onnx_path: The graph.
        settings: See `BuildSettings`.

    Raises:
        ExportError: The parser or the builder refused the graph; quotes all it said.
    """
    logger = logger_of(module)
    _drain(logger)
    builder = module.Builder(logger)
    network = builder.create_network(_network_flags(module))
    parser = module.OnnxParser(network, logger)
    if not parser.parse(onnx_path.read_bytes(), str(onnx_path)):
        raise ExportError(f"{_name(module)} cannot parse '{onnx_path.name}': {_parser_errors(parser)}")
    config = _configure(module, builder, network, settings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = _drain(logger) or "it gave no reason"
        raise ExportError(f"{_name(module)} cannot build an engine of '{onnx_path.name}': {said}")
    return bytes(plan)


def _name(module: ModuleType) -> str:
    return f"{'TensorRT-RTX' if 'rtx' in module.__name__ else 'TensorRT'} {module.__version__}"


def _network_flags(module: ModuleType) -> int:
    """Explicit batch (before TensorRT 10 it had to be asked for) and strong typing (10 and newer)."""
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
    module: ModuleType, builder: trt.Builder, network: trt.INetworkDefinition, settings: BuildSettings
) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    flags = module.BuilderFlag
    if not settings.tf32 and hasattr(flags, "TF32"):
        config.clear_flag(flags.TF32)
    if not hasattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        for word, name in (("fp16", "FP16"), ("int8", "INT8")):
            if settings.precision == word:
                config.set_flag(getattr(flags, name))
    if settings.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.profile is not None:
        profile = builder.create_optimization_profile()
        wanted = settings.profile
        profile.set_shape(network.get_input(0).name, wanted.smallest, wanted.best, wanted.largest)
        config.add_optimization_profile(profile)
    _set_capabilities(module, config, settings.compute_capabilities)
    return config


def _set_capabilities(module: ModuleType, config: trt.IBuilderConfig, wanted: tuple[str, ...]) -> None:
    if not wanted:
        return
    known = {f"{n[2:-1]}.{n[-1]}": n for n in dir(module.ComputeCapability) if n.startswith("SM") and n[2:].isdigit()}
    for word in wanted:
        if word not in known:
            raise UnknownNameError("compute capability", word, known)
    config.num_compute_capabilities = len(wanted)
    for index, word in enumerate(wanted):
        config.set_compute_capability(getattr(module.ComputeCapability, known[word]), index)


def load_plan(module: ModuleType, plan: bytes) -> trt.ICudaEngine:
    """Deserialise an engine. Call it only where there is a GPU, with its context current.

    Raises:
        PlanRefusedError: TensorRT refuses the bytes: another version, another GPU, or damage.
    """
    logger = logger_of(module)
    _drain(logger)
    runtime = module.Runtime(logger)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanRefusedError(_drain(logger) or f"{_name(module)} gave no reason")
    return engine


@dataclass
class _Tensor:
    """One input or output of an engine with its memory, grown when a larger shape comes."""

    info: TensorInfo
    device: cuda.Buffer | None = None
    host: cuda.PinnedArray | None = None

    def fit(self, shape: tuple[int, ...]) -> None:
        """Have memory for exactly `shape` on the host and at least as much on the GPU."""
        if self.host is not None and self.host.array.shape == shape:
            return
        host = cuda.PinnedArray(shape, self.info.dtype)
        if self.host is not None:
            self.host.close()
        self.host = host
        if self.device is None or self.device.size < host.array.nbytes:
            if self.device is not None:
                self.device.close()
            self.device = cuda.Buffer(host.array.nbytes)

    def close(self) -> None:
        for part in (self.device, self.host):
            if part is not None:
                part.close()
        self.device = self.host = None


class EngineSession(SessionBase):
    """A TensorRT engine with one execution context; calls wait for one another.

    Args:
        module: The TensorRT package.
        device: The GPU; the session closes it.
        engine: A deserialised ``ICudaEngine``.
        info: What runs.
    """

    def __init__(self, module: ModuleType, device: cuda.Device, engine: trt.ICudaEngine, info: SessionInfo) -> None:
        self.info = info
        self._device, self._logger = device, logger_of(module)
        self._engine: trt.ICudaEngine | None = engine
        self._context: trt.IExecutionContext | None = engine.create_execution_context()
        if self._context is None:
            said = _drain(self._logger) or "it gave no reason"
            raise EdgesegError(f"{info.engine} cannot prepare the engine on {info.device}: {said}")
        tensors = [_describe(engine, index) for index in range(engine.num_io_tensors)]
        self.inputs = tuple(tensor for tensor, mode in tensors if mode == "INPUT")
        self.outputs = tuple(tensor for tensor, mode in tensors if mode == "OUTPUT")
        self._tensors = {tensor.name: _Tensor(tensor) for tensor, _ in tensors}
        self._shape: tuple[int, ...] = ()
        self._stream = cuda.Stream()

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        self._device.make_current()
        self._load(image)
        self._execute()
        return self._fetch(names)

    def device_milliseconds(self, image: NDArray[np.uint8], repeat: int) -> list[float]:
        """Time the engine alone, between events on the GPU, without any copy.

        Args:
            image: As in `run`.
            repeat: How often.

        Returns:
            Milliseconds per run.
        """
        with self._entered():
            self._device.make_current()
            self._load(image)
            before, after = cuda.Event(), cuda.Event()
            times = []
            for _ in range(repeat):
                before.record(self._stream)
                self._execute()
                after.record(self._stream)
                times.append(after.milliseconds_since(before))
            for event in (before, after):
                event.close()
            return times

    def _load(self, image: NDArray[np.uint8]) -> None:
        """Bring the image onto the GPU, with memory for outputs of its size."""
        if image.shape != self._shape:
            self._bind(image.shape)
        tensor = self._tensors[self.inputs[0].name]
        if tensor.host is None or tensor.device is None:
            raise EdgesegError("the session has no memory on the GPU; open it again")
        np.copyto(tensor.host.array, image)
        tensor.device.write(tensor.host.array, self._stream)

    def _bind(self, shape: tuple[int, ...]) -> None:
        """Tell the context the input's shape and where every tensor lies."""
        context, name = self._live(), self.inputs[0].name
        if not context.set_input_shape(name, shape):
            raise InputError(f"the engine does not take a size of {shape[1]}x{shape[2]}: {self._range(name)}")
        self._shape = ()
        for key, tensor in self._tensors.items():
            tensor.fit(tuple(int(size) for size in context.get_tensor_shape(key)))
            if tensor.device is not None:
                context.set_tensor_address(key, tensor.device.address)
        self._shape = shape

    def _range(self, name: str) -> str:
        """The sizes the engine was built for, in words."""
        if self._engine is None:
            return "it is closed"
        _drain(self._logger)
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        return f"it was built for {low[1]}x{low[2]} to {high[1]}x{high[2]}"

    def _execute(self) -> None:
        if not self._live().execute_async_v3(self._stream.handle):
            said = _drain(self._logger) or "it gave no reason"
            raise EdgesegError(f"{self.info.engine} failed to run the engine: {said}")

    def _fetch(self, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Copy the wanted outputs back, wait, and give the caller arrays of its own."""
        hosts: dict[str, NDArray[Any]] = {}
        for name in names:
            tensor = self._tensors[name]
            if tensor.host is not None and tensor.device is not None:
                tensor.device.read(tensor.host.array, self._stream)
                hosts[name] = tensor.host.array
        self._stream.wait()
        return {name: host.copy() for name, host in hosts.items()}

    def _live(self) -> trt.IExecutionContext:
        if self._context is None:
            raise InputError(CLOSED)
        return self._context

    def _free(self) -> None:
        self._device.make_current()
        self._context = None  # the context goes before the engine, both before their GPU
        self._engine = None
        for tensor in self._tensors.values():
            tensor.close()
        self._stream.close()
        self._device.close()


def _describe(engine: trt.ICudaEngine, index: int) -> tuple[TensorInfo, str]:
    name = engine.get_tensor_name(index)
    shape = tuple(int(size) if size >= 0 else None for size in engine.get_tensor_shape(name))
    kind = str(engine.get_tensor_dtype(name).name)
    return TensorInfo(name, shape, _DTYPES.get(kind, kind.lower())), str(engine.get_tensor_mode(name).name)


def open_guarded(device: cuda.Device, make: Callable[[], EngineSession]) -> EngineSession:
    """Make a session, letting go of the GPU where that fails."""
    try:
        return make()
    except BaseException:
        device.close()
        raise
