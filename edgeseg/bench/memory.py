"""Memory of this process: resident now, and its maximum so far."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["MemoryUse", "peak_mib", "resident_mib"]

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemoryUse:
    """Main memory of the measuring process, MiB; None where the system does not report it.

    Attributes:
        before_mib: Resident before the bundle was opened (Python, numpy, OpenCV).
        loaded_mib: Resident once the engine was ready.
        peak_mib: Maximum, loading and measuring included.
    """

    before_mib: float | None
    loaded_mib: float | None
    peak_mib: float | None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MemoryUse:
        """Read what `to_json` gave."""
        return cls(data["before_mib"], data["loaded_mib"], data["peak_mib"])


def resident_mib() -> float | None:
    """Read the resident memory of this process now."""
    return _status("VmRSS")


def peak_mib() -> float | None:
    """Read the maximum of this process's resident memory.

    ``VmHWM`` comes first: on Linux ``ru_maxrss`` survives exec, so a small child of a large parent would report the
    parent's peak.
    """
    peak = _status("VmHWM")
    return peak if peak is not None else _maxrss()


def _status(name: str) -> float | None:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{name}:"):
            return round(int(line.split()[1]) / 1024.0, 1)
    return None


def _maxrss() -> float | None:
    if sys.platform == "win32":
        return None
    import resource

    unit = 1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
