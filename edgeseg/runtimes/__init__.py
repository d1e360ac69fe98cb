"""The engines, one file each, behind one narrow seam (`edgeseg.runtimes._base`).

Third parties add an engine with an entry point in the group ``edgeseg.runtimes``: its name is the target, its object a
callable ``open_session(bundle, options) -> Session``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib import metadata

from edgeseg.bundle import Bundle
from edgeseg.runtimes._base import RuntimeOptions, Session, SessionInfo, TensorInfo
from edgeseg.targets import resolve_target

__all__ = ["RuntimeOptions", "Session", "SessionInfo", "TensorInfo", "open_session"]

_MODULES = {
    "ort": "edgeseg.runtimes.ort.session",
    "openvino": "edgeseg.runtimes.openvino.session",
    "trt": "edgeseg.runtimes.tensorrt.trt",
    "trt-rtx": "edgeseg.runtimes.tensorrt.rtx",
    "torch": "edgeseg.runtimes.torch.session",
}


def open_session(bundle: Bundle, target: str, options: RuntimeOptions | None = None) -> Session:
    """Open a bundle on an engine.

    Args:
        bundle: An opened bundle.
        target: Target name or alias.
        options: How to run; the defaults give exact fp32 on the plainest device.

    Raises:
        UnknownNameError: No such target.
        TargetUnavailableError: The machine lacks what the target needs. Nothing else is used instead.
        BundleError: The bundle was not exported for the target.
    """
    name = resolve_target(target)
    return _opener(name)(bundle, options or RuntimeOptions())


def _opener(name: str) -> Callable[[Bundle, RuntimeOptions], Session]:
    if name in _MODULES:
        opener: Callable[[Bundle, RuntimeOptions], Session] = importlib.import_module(_MODULES[name]).open_session
        return opener
    for entry in metadata.entry_points(group="edgeseg.runtimes"):
        if entry.name == name:
            loaded: Callable[[Bundle, RuntimeOptions], Session] = entry.load()
            return loaded
    raise KeyError(name)
