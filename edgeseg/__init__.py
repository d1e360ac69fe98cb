"""edgeseg: a lightweight segmentation network from a PyTorch checkpoint to an edge device, exactly and fast.

On the machine that exports (``pip install 'edgeseg[export]'``)::

    import edgeseg

    edgeseg.export_model("espnet_p2_q8", weights="espnet_p_2_q_8.pth", size=(512, 1024), targets=["ort", "openvino"])

On the device (numpy, OpenCV and one runtime; no torch)::

    predictor = edgeseg.Predictor("espnet_p2_q8.edgeseg", target="openvino")
    labels = predictor("frame.png").labels

Importing this package imports neither torch nor any engine; each comes when it is first used. It also keeps them from
sending usage data (`edgeseg._quiet`).
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # `python -m edgeseg` puts the current folder first; a numpy.py that lies there must not run

import importlib
from typing import TYPE_CHECKING, Any

from edgeseg._quiet import hush, switch_off_telemetry
from edgeseg.errors import EdgesegError

if TYPE_CHECKING:
    from edgeseg.bench import benchmark
    from edgeseg.bundle import open_bundle
    from edgeseg.export import export_model
    from edgeseg.models import ModelSpec, create_model, list_models
    from edgeseg.predictor import Predictor
    from edgeseg.results import Result
    from edgeseg.runtimes import RuntimeOptions
    from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule

__version__ = "0.1.0"

__all__ = [
    "EdgesegError",
    "InputSpec",
    "ModelSpec",
    "PostprocessSpec",
    "Predictor",
    "ResizeRule",
    "Result",
    "RuntimeOptions",
    "__version__",
    "benchmark",
    "create_model",
    "export_model",
    "list_models",
    "open_bundle",
]

_HOMES = {
    "InputSpec": "edgeseg.specs",
    "ModelSpec": "edgeseg.models",
    "Predictor": "edgeseg.predictor",
    "ResizeRule": "edgeseg.specs",
    "Result": "edgeseg.results",
    "RuntimeOptions": "edgeseg.runtimes",
    "PostprocessSpec": "edgeseg.specs",
    "benchmark": "edgeseg.bench",
    "create_model": "edgeseg.models",
    "export_model": "edgeseg.export",
    "list_models": "edgeseg.models",
    "open_bundle": "edgeseg.bundle",
}


switch_off_telemetry()
hush()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeseg' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
