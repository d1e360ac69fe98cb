"""The engines, a folder each, behind one narrow seam.

What a session is, `edgeseg.runtimes._base` says; what an engine is, its record (`edgeseg.runtimes.engine`). Other
packages add engines of their own (`edgeseg.runtimes.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg.runtimes._base import (
    DeviceLabelling,
    RuntimeOptions,
    Session,
    SessionBase,
    SessionInfo,
    TensorInfo,
    device_labelling,
)
from edgeseg.runtimes.engine import BuildRequest, Engine, Probe, Standalone
from edgeseg.runtimes.registry import engine, engines, resolve_target

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

__all__ = [
    "BuildRequest",
    "DeviceLabelling",
    "Engine",
    "Probe",
    "RuntimeOptions",
    "Session",
    "SessionBase",
    "SessionInfo",
    "Standalone",
    "TensorInfo",
    "device_labelling",
    "engine",
    "engines",
    "open_session",
    "resolve_target",
]


def open_session(bundle: Bundle, target: str, options: RuntimeOptions | None = None) -> Session:
    """Open a bundle on an engine.

    Args:
        bundle: An opened bundle.
        target: Target name or alias.
        options: How to run; the defaults give exact fp32 on the plainest device.

    Raises:
        UnknownNameError: No such target.
        UsageError: An option that the target has no use for.
        TargetUnavailableError: The machine lacks what the target needs. Nothing else is used instead.
        BundleError: The bundle was not exported for the target.
    """
    return engine(target).session(bundle, options or RuntimeOptions())
