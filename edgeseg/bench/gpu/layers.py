"""What an engine is made of: its layers, their types and times, and the memory it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.gpu.findings import AbsentError, Outcome
from edgeseg.bundle import Bundle
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.build import build_plan, settings_for
from edgeseg.runtimes.tensorrt.session import graph_file, load_plan

__all__ = ["Layer", "layers_of", "look_at_layers"]

_TYPES = (("fp32", r"fp32|float\b"), ("fp16", r"fp16|half"), ("int8", r"int8"), ("bf16", r"bf16|bfloat"))
_BYTES = {"FLOAT": 4, "HALF": 2, "UINT8": 1, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1}
_RUNS = 10


@dataclass(frozen=True)
class Layer:
    """A layer of an engine.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's word for it; empty where it does not tell.
        type: Of what it gives, such as ``fp16``; empty where TensorRT does not tell.
        ms: Of a run, on average.
    """

    name: str
    kind: str = ""
    type: str = ""
    ms: float = 0.0


def look_at_layers(module: ModuleType, device: cuda.Device, bundle: Bundle, image: NDArray[np.uint8]) -> Outcome:
    """Build an engine that tells of its layers, run it with a profiler, and tell what it spends its time on.

    Args:
        module: TensorRT's package.
        device: The GPU.
        bundle: Exported for it.
        image: uint8 (N, H, W, C).

    Raises:
        AbsentError: The package has no inspector or no profiler.
    """
    if not hasattr(module, "EngineInspector") or not hasattr(module, "IProfiler"):
        raise AbsentError("this package has no inspector or no profiler")
    settings = replace(settings_for(bundle, RuntimeOptions()).on(device.gpu), detailed=True)
    plan = build_plan(module, bundle.file(graph_file(bundle)), settings)
    with device.current():
        engine: Any = load_plan(module, plan)
        information = engine.create_engine_inspector().get_engine_information(module.LayerInformationFormat.JSON)
        memory = getattr(engine, "device_memory_size_v2", None)
        times = _profiled(module, engine, image)
        del engine
    layers = [replace(layer, ms=times.get(layer.name, 0.0)) for layer in layers_of(information)]
    return _told(layers, times, {"plan_bytes": len(plan), "device_memory_bytes": memory})


def layers_of(information: str) -> list[Layer]:
    """Layers in what an ``EngineInspector`` gives; it names them alone where the engine was built to tell no more."""
    found: list[Any] = json.loads(information).get("Layers", [])
    return [Layer(each) if isinstance(each, str) else _layer(each) for each in found]


def _layer(told: Mapping[str, Any]) -> Layer:
    types = [_type(json.dumps(output)) for output in told.get("Outputs", [])]
    return Layer(str(told.get("Name", "")), str(told.get("LayerType", "")), next(filter(None, types), ""))


def _type(text: str) -> str:
    words = " ".join(re.findall(r'"(?:Format/)?(?:Datatype|Format)":\s*"([^"]*)"', text)).lower()
    return next((name for name, pattern in _TYPES if re.search(pattern, words)), "")


def _profiled(module: ModuleType, engine: Any, image: NDArray[np.uint8]) -> dict[str, float]:
    """Milliseconds per run of each layer; the first run is not counted."""
    times: dict[str, float] = {}

    def report(_: object, name: str, ms: float) -> None:
        times[name] = times.get(name, 0.0) + ms / _RUNS

    profiler = type("CollectingProfiler", (module.IProfiler,), {"report_layer_time": report})()
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    source = next(name for name in names if engine.get_tensor_mode(name).name == "INPUT")
    context.set_input_shape(source, tuple(image.shape))
    with ExitStack() as opened:
        stream = opened.enter_context(closing(cuda.Stream()))
        for name in names:
            width = _BYTES.get(engine.get_tensor_dtype(name).name, 8)
            size = int(np.prod(context.get_tensor_shape(name))) * width
            memory = opened.enter_context(closing(cuda.Buffer(size)))
            context.set_tensor_address(name, memory.address)
            if name == source:
                memory.write(image, stream)
        context.execute_async_v3(stream.handle)
        stream.wait()
        context.profiler = profiler
        for _ in range(_RUNS):
            context.execute_async_v3(stream.handle)
            stream.wait()
        opened.callback(stream.wait)
        del context
    return times


def _told(layers: list[Layer], times: Mapping[str, float], figures: dict[str, Any]) -> Outcome:
    total = sum(times.values())
    shares: dict[str, float] = {}
    for layer in layers:
        shares[layer.type or "unknown"] = shares.get(layer.type or "unknown", 0.0) + layer.ms
    words = ", ".join(f"{name} {100 * ms / total:.0f} %" for name, ms in sorted(shares.items()) if total)
    slowest = max(layers, key=lambda layer: layer.ms, default=Layer("none"))
    told = f"{len(layers)} layers, {total:.3f} ms by the profiler ({words}); the slowest: {slowest.name[:80]}"
    figures |= {"layers": [asdict(layer) for layer in layers], "profiled_ms": total, "ms_by_type": shares}
    return Outcome(bool(layers) and bool(times), told, figures)
