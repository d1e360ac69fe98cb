"""The ``ort`` target: ONNX Runtime 1.18 or newer on exactly the execution provider that was asked for.

ONNX Runtime answers a provider it cannot start by silently using the CPU; here that is an error. A provider may still
leave single nodes (shape arithmetic, operators it lacks) to the CPU, which is how ONNX Runtime is meant to work.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import require
from edgeseg.bundle import MODEL, ORT_MODEL, Bundle
from edgeseg.errors import BundleError, EdgesegError, TargetUnavailableError, UsageError
from edgeseg.runtimes._base import RuntimeOptions, SessionBase, SessionInfo, TensorInfo
from edgeseg.text import first_line

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["PROVIDERS", "OrtSession", "open_session", "resolve_provider"]

CPU = "CPUExecutionProvider"

#: Word for a device -> execution provider.
PROVIDERS: dict[str, str] = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "acl": "ACLExecutionProvider",
    "qnn": "QNNExecutionProvider",
}

_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu (on a Jetson: NVIDIA's build of it for JetPack)",
    "TensorrtExecutionProvider": "onnxruntime-gpu (on a Jetson: NVIDIA's build of it for JetPack) and TensorRT",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "DmlExecutionProvider": "onnxruntime-directml",
    "CoreMLExecutionProvider": "onnxruntime on macOS",
    "QNNExecutionProvider": "onnxruntime-qnn",
}

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}

_PRECISIONS = {"int8": "int8, the rest fp32", "bf16": "fp32"}
"""Arithmetic by precision of the bundle; bf16 is OpenVINO's."""

_DAMAGED = ("InvalidProtobuf", "InvalidGraph", "NoModel", "NoSuchFile")


def open_session(bundle: Bundle, options: RuntimeOptions) -> OrtSession:
    """Open ``model.onnx`` of a bundle in ONNX Runtime.

    Args:
        bundle: An opened bundle.
        options: `threads`, `device` (see `PROVIDERS`, or a provider's full name) and `provider_options` are used.

    Raises:
        TargetUnavailableError: The provider is not in the installed onnxruntime, or does not start on this machine.
        BundleError: The graph cannot be read.
        UsageError: A device that means no provider.
    """
    ort = require("onnxruntime", extra="", why="the ort target")
    provider = resolve_provider(options.device, tuple(ort.get_available_providers()))
    session = _create(ort, bundle, provider, options)
    return OrtSession(session, bundle.manifest.precision_of("ort"), str(ort.__version__), options.threads)


def resolve_provider(device: str | None, available: tuple[str, ...]) -> str:
    """The execution provider that `device` means.

    Args:
        device: A word of `PROVIDERS` or a provider's full name, in any case; None is the CPU.
        available: What the installed onnxruntime offers.

    Raises:
        UsageError: The word means no provider.
        TargetUnavailableError: The installed onnxruntime lacks it.
    """
    word = (device or "cpu").strip()
    named = {name.lower(): name for name in (*PROVIDERS.values(), *available)}
    provider = PROVIDERS.get(word.lower()) or named.get(word.lower())
    if provider is None:
        if not word.lower().endswith("executionprovider"):
            raise UsageError(
                f"device '{word}' means no ONNX Runtime provider; use {', '.join(PROVIDERS)} or a provider's full name"
            )
        provider = word
    if provider not in available:
        has = ", ".join(available)
        package = _PACKAGES.get(provider)
        way = f"install {package} in place of onnxruntime" if package else "install an onnxruntime built with it"
        raise TargetUnavailableError(f"the installed onnxruntime has no {provider} (it has {has}); {way}")
    return provider


def _create(ort: ModuleType, bundle: Bundle, provider: str, options: RuntimeOptions) -> onnxruntime.InferenceSession:
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = 3  # errors only; warnings about other machines' devices help nobody
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    manifest = bundle.manifest
    other = provider == CPU or manifest.precision_of("ort") != manifest.precision  # the shared graph is in another one
    graph = bundle.file(ORT_MODEL if other and bundle.has(ORT_MODEL) else MODEL)
    choice = [(provider, dict(options.provider_options))]
    try:
        session: onnxruntime.InferenceSession = ort.InferenceSession(
            str(graph), settings, providers=choice, enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors share no base class
        raise _refusal(error, provider, str(graph)) from error
    session.disable_fallback()
    got = session.get_providers()
    if not got or got[0] != provider:
        raise TargetUnavailableError(
            f"{provider} did not start on this machine (onnxruntime fell back to {', '.join(got)}); "
            "check its driver and libraries, or ask for the device cpu"
        )
    made: onnxruntime.InferenceSession = session
    return made


def _refusal(error: Exception, provider: str, graph: str) -> EdgesegError:
    """The sentence for a session that could not be made."""
    cause = first_line(error)
    if provider == CPU or type(error).__name__ in _DAMAGED:
        return BundleError(f"ONNX Runtime cannot read '{graph}' ({cause}); copy or export the bundle again")
    return TargetUnavailableError(f"{provider} did not start on this machine ({cause}); check its driver and libraries")


class OrtSession(SessionBase):
    """A bundle's graph in ONNX Runtime; runs may overlap, ONNX Runtime is thread-safe.

    Args:
        session: An ``onnxruntime.InferenceSession``.
        precision: Of the numbers in the graph.
        version: Of onnxruntime.
        threads: As asked for.
    """

    overlaps = True

    def __init__(
        self, session: onnxruntime.InferenceSession, precision: str, version: str, threads: int | None
    ) -> None:
        self._session: Any = session
        self.inputs = tuple(_tensor(node) for node in session.get_inputs())
        self.outputs = tuple(_tensor(node) for node in session.get_outputs())
        self.info = SessionInfo(
            target="ort",
            engine=f"onnxruntime {version}",
            device=session.get_providers()[0],
            precision=_PRECISIONS.get(precision, precision),
            threads=threads,
        )

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        try:
            values = self._session.run(list(names), {self.inputs[0].name: image})
        except Exception as error:  # onnxruntime's errors share no base class
            raise EdgesegError(
                f"ONNX Runtime failed to run the graph on {self.info.device}: {first_line(error)}"
            ) from error
        return dict(zip(names, values, strict=True))

    def _free(self) -> None:
        self._session = None


def _tensor(node: onnxruntime.NodeArg) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorInfo(str(node.name), shape, _DTYPES.get(str(node.type), str(node.type)))
