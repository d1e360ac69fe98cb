"""The ``ort`` target: ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg._optional import package_version, require
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.engine import Engine, Probe

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.graph.passes import Pass
    from edgeseg.runtimes.ort.session import OrtSession

__all__ = ["ORT"]


def _open(bundle: Bundle, options: RuntimeOptions) -> OrtSession:
    from edgeseg.runtimes.ort.session import open_session

    return open_session(bundle, options)


def _probe() -> Probe:
    ort = require("onnxruntime", extra="", why="the ort target")
    providers = tuple(str(p) for p in ort.get_available_providers() if p != "AzureExecutionProvider")
    advice = ""
    if len(_distributions("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")) > 1:
        advice = "several onnxruntime packages are installed and overwrite one another; keep one of them"
    return Probe(True, f"onnxruntime {ort.__version__}", providers, advice=advice)


def _distributions(*names: str) -> tuple[str, ...]:
    return tuple(name for name in names if package_version(name))


def _passes(precision: str) -> tuple[type[Pass], ...]:
    from edgeseg.runtimes.ort.passes import FLOAT_PASSES, INT8_PASSES

    return {"fp32": FLOAT_PASSES, "int8": INT8_PASSES}.get(precision, ())


ORT = Engine(
    name="ort",
    aliases=("onnxruntime", "onnx"),
    description="ONNX Runtime (CPU by default; CUDA and others by provider)",
    needs="nothing more; other providers by `--device cuda` and the like",
    options={
        "threads": "threads of the engine on the CPU; by default as many as ONNX Runtime takes",
        "device": "cpu (default), cuda, tensorrt, openvino, dml, coreml, or a provider's full name",
        "provider_options": "passed to the execution provider as they are",
    },
    files=("ort/model.onnx", "model.onnx"),
    graph="ort/model.onnx",
    open=_open,
    probe=_probe,
    passes=_passes,
)
