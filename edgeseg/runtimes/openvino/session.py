"""The ``openvino`` target: ``openvino/model.xml`` on an Intel, AMD or ARM CPU, an Intel GPU or an NPU.

OpenVINO picks bf16 or f16 arithmetic by itself where the device is faster with it; here f32 is asked for unless the
user says otherwise, so that the masks are those of PyTorch. OpenVINO loads a damaged graph of its cache without a word
(and labels are wrong), so the cache is checked before (`edgeseg.runtimes.openvino.blob_cache`).
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import require
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError, TargetUnavailableError, UnknownNameError
from edgeseg.runtimes._base import RuntimeOptions, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes._fork import never_free_in_child, start_engine
from edgeseg.runtimes.openvino import OPENVINO_MODEL
from edgeseg.runtimes.openvino.blob_cache import guarded_blobs
from edgeseg.text import first_line

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenVinoSession", "cause", "open_session", "release", "runner", "shared_core"]

_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_HINTS = ("latency", "throughput")
_WEIGHTS = PurePosixPath(OPENVINO_MODEL).with_suffix(".bin").as_posix()
_VIRTUAL = ("AUTO", "MULTI", "HETERO", "BATCH")


def open_session(bundle: Bundle, options: RuntimeOptions) -> OpenVinoSession:
    """Compile ``openvino/model.xml`` of a bundle.

    Args:
        bundle: A bundle exported for ``openvino``.
        options: `device` (``CPU``, ``GPU``, ``NPU``, ``AUTO``), `hint`, `precision`, `threads`, `cache_dir`.

    Raises:
        TargetUnavailableError: openvino is not installed, or the machine has no such device.
        BundleError: The bundle was not exported for OpenVINO, or its graph cannot be read.
        UnknownNameError: A precision or hint that OpenVINO does not have.
    """
    precision = bundle.manifest.precision_of("openvino")
    config = _config(options, "bf16" if precision == "bf16" else "f32")
    graph = bundle.file(OPENVINO_MODEL)
    weights = bundle.file(_WEIGHTS)
    ov = require("openvino", extra="openvino", why="the openvino target")
    core = shared_core()
    device = _device(options.device, tuple(core.available_devices))
    try:
        model = core.read_model(str(graph), str(weights))
    except (RuntimeError, UnicodeError) as error:  # what it quotes of a damaged file may be no text
        raise BundleError(
            f"OpenVINO cannot read '{graph}' ({cause(error)}); copy or export the bundle again"
        ) from error
    if options.cache_dir is None:
        return OpenVinoSession(_compile(core, model, device, config), precision, release(ov))
    with guarded_blobs(_key(bundle, ov, core, device, config), Path(options.cache_dir)) as blobs:
        cached = {**config, "CACHE_DIR": str(blobs.folder.absolute())} if blobs.folder else config
        compiled = _compile(core, model, device, cached)
    return OpenVinoSession(compiled, precision, release(ov), tuple(blobs.notes))


def shared_core() -> openvino.Core:
    """OpenVINO's core, one for the process and kept to its end.

    The CPU plugin gives the thread that loads it a stack for signal handlers, and frees that stack with the last core:
    where this happens in another thread, the next Ctrl-C ends the process with a segmentation fault.

    Raises:
        TargetUnavailableError: openvino is not installed, or started before this process was forked.
    """
    require("openvino", extra="openvino", why="the openvino target")
    start_engine("OpenVINO")
    return _core()


@functools.lru_cache(maxsize=1)
def _core() -> openvino.Core:
    core: openvino.Core = require("openvino", extra="openvino", why="the openvino target").Core()
    never_free_in_child(core)
    atexit.register(_core.cache_clear)  # before the interpreter takes modules apart
    return core


def _compile(core: openvino.Core, model: openvino.Model, device: str, config: dict[str, Any]) -> openvino.CompiledModel:
    try:
        return core.compile_model(model, device, config)
    except (RuntimeError, UnicodeError) as error:
        asked = ", ".join(f"{key}={value}" for key, value in config.items())
        raise TargetUnavailableError(
            f"OpenVINO cannot compile the graph for {device} with {asked} ({cause(error)}); use the device CPU, "
            "or leave these options out"
        ) from error


def _key(bundle: Bundle, ov: ModuleType, core: openvino.Core, device: str, config: dict[str, Any]) -> dict[str, object]:
    """Everything that a compiled graph in the cache depends on."""
    return {
        "model": bundle.manifest.files[OPENVINO_MODEL],
        "weights": bundle.manifest.files[_WEIGHTS],
        "engine": f"openvino {ov.__version__}",
        "device": device,
        "devices": {name: _full_name(core, name) for name in core.available_devices},
        "config": config,
    }


def _full_name(core: openvino.Core, device: str) -> str:
    try:
        return str(core.get_property(device, "FULL_DEVICE_NAME"))
    except RuntimeError:
        return "unknown"


def _config(options: RuntimeOptions, default: str = "f32") -> dict[str, Any]:
    """OpenVINO's properties for the options; every value is checked here, before anything is loaded."""
    precision, hint = options.precision or default, options.hint or "latency"
    if precision.lower() not in _PRECISIONS:
        raise UnknownNameError("OpenVINO precision", precision, _PRECISIONS)
    if hint.lower() not in _HINTS:
        raise UnknownNameError("OpenVINO hint", hint, _HINTS)
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": hint.upper(),
        "INFERENCE_PRECISION_HINT": precision.lower(),
    }
    if options.threads is not None:
        config["INFERENCE_NUM_THREADS"] = options.threads
    return config


def _device(asked: str | None, available: tuple[str, ...]) -> str:
    """The device's name as OpenVINO spells it; a plain ``GPU`` stands for ``GPU.0``."""
    device = (asked or "CPU").strip().upper()
    if device.partition(":")[0] in _VIRTUAL:
        return device
    if device in available or any(name.startswith(f"{device}.") for name in available):
        return device
    has = ", ".join(available) or "none"
    raise TargetUnavailableError(
        f"OpenVINO finds no device {device} on this machine (it has {has}); use one of these, or install its driver"
    )


def release(ov: ModuleType) -> str:
    """Give OpenVINO's release number without the build's hash: ``2026.4.1``."""
    return str(ov.__version__).partition("-")[0]


def cause(error: BaseException) -> str:
    """Give the first telling line of an OpenVINO error; those before it name its source files."""
    return first_line(error, 300, skip=("Exception from", "Check '"))


def runner(file: Path) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    """Open a graph that ends in labels alone on the CPU, in exact fp32.

    Args:
        file: The ``.xml`` file.

    Returns:
        A function from uint8 (N, H, W, C) to labels (N, H, W).
    """
    compiled = shared_core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled({0: image})[0]


class OpenVinoSession(SessionBase):
    """A compiled model with one infer request; calls wait for one another.

    Args:
        compiled: An ``openvino.CompiledModel``.
        precision: Of the numbers in the graph: ``fp32``, ``fp16`` or ``int8``.
        version: Of OpenVINO.
        notes: Sentences for the user.
    """

    def __init__(
        self, compiled: openvino.CompiledModel, precision: str, version: str, notes: tuple[str, ...] = ()
    ) -> None:
        self._request: Any = compiled.create_infer_request()
        self.inputs = tuple(_tensor(port) for port in compiled.inputs)
        self.outputs = tuple(_tensor(port) for port in compiled.outputs)
        self.info = SessionInfo(
            target="openvino",
            engine=f"openvino {version}",
            device=_property(compiled, "EXECUTION_DEVICES", "unknown"),
            precision=_precision(compiled, precision),
            threads=_threads(compiled),
            notes=notes,
        )

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        try:
            values = self._request.infer({self.inputs[0].name: image}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EdgesegError(f"OpenVINO failed to run the graph: {cause(error)}") from error
        return {name: np.array(values[name]) for name in names}

    def _free(self) -> None:
        self._request = None


def _tensor(port: openvino.ConstOutput) -> TensorInfo:
    shape = tuple(int(size.get_length()) if size.is_static else None for size in port.partial_shape)
    return TensorInfo(port.any_name, shape, np.dtype(port.element_type.to_dtype()).name)


def _property(compiled: openvino.CompiledModel, name: str, default: str) -> str:
    """A property in words; devices do not tell all of them."""
    try:
        value = compiled.get_property(name)
    except RuntimeError:
        return default
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _precision(compiled: openvino.CompiledModel, graph: str) -> str:
    """Arithmetic in use: what the compiled model says, and int8 where the graph is quantised."""
    try:
        name = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    except (RuntimeError, AttributeError):
        name = "unknown"
    arithmetic = _PRECISIONS.get(name, name)
    return f"int8, the rest {arithmetic}" if graph == "int8" else arithmetic


def _threads(compiled: openvino.CompiledModel) -> int | None:
    threads = _property(compiled, "INFERENCE_NUM_THREADS", "")
    return int(threads) if threads.isdigit() and int(threads) > 0 else None
