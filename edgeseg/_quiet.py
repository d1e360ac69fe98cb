"""Switch off usage data and needless lines of dependencies before any is imported, unless the user chose otherwise.

Importing edgeseg does that, so it applies to every process that edgeseg starts. A variable that the user has set is not
changed. OpenVINO has no variable. Its telemetry is the package ``openvino_telemetry``, without which OpenVINO and NNCF
work as well. Its import is made to fail as if it were not installed, unless the user opted in with Intel's own tool
(``opt_in_out --opt_in``) or imported it before edgeseg.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeseg.text import one_line

__all__ = ["HUSHED", "SWITCHES", "Switch", "Telemetry", "hush", "switch_off_telemetry", "telemetry"]

_SENDER = "openvino_telemetry"


@dataclass(frozen=True)
class Switch:
    """The environment variable that a package reads when it is imported.

    Attributes:
        package: Package that reads it.
        variable: Its name.
        stops: What the package no longer does where it is set to ``1``.
        off: Values that switch off, in lower case; empty where every value but the empty one does.
        through: Module that the package sends through; where that cannot be imported, nothing is sent.
    """

    package: str
    variable: str
    stops: str
    off: tuple[str, ...] = ()
    through: str = ""


SWITCHES = (
    Switch(
        "onnxruntime",
        "ORT_DISABLE_TELEMETRY",
        "events to mobile.events.data.microsoft.com, a device's number and a database in the user's cache, .ses in the "
        "temporary folder, and a thread for which a forked child waits for ever when it ends",
        ("1", "true", "yes", "on", "y"),
    ),
    Switch("nncf", "NNCF_CI", "events to www.google-analytics.com, through openvino_telemetry", through=_SENDER),
)


HUSHED = {"HWLOC_HIDE_ERRORS": "2"}
"""Variables that keep native code from writing to standard error.

hwloc, by which OpenVINO counts processors, writes a line where a container has no ``/sys``, and counts another way.
"""


@dataclass(frozen=True)
class Telemetry:
    """Whether a package may send usage data from this process.

    Attributes:
        package: The package.
        off: Whether it is kept from sending.
        decided_by: ``edgeseg``, or what the user set.
    """

    package: str
    off: bool
    decided_by: str

    def __str__(self) -> str:
        return f"{self.package} {'off' if self.off else 'on'} ({self.decided_by})"


_ours: set[str] = set()


def switch_off_telemetry() -> None:
    """Set every switch the user has not set, and keep ``openvino_telemetry`` from being imported."""
    for switch in SWITCHES:
        if switch.variable not in os.environ:
            os.environ[switch.variable] = "1"
            _ours.add(switch.variable)
    if _consent() != "1":
        sys.modules.setdefault(_SENDER, None)  # type: ignore[arg-type]  # None makes an import fail as if it was missing


def hush() -> None:
    """Set every variable of `HUSHED` that the user has not set."""
    for variable, value in HUSHED.items():
        os.environ.setdefault(variable, value)


def telemetry() -> tuple[Telemetry, ...]:
    """Describe the present state of every package that has telemetry, and who decided it."""
    return (*map(_state, SWITCHES), _openvino())


def _state(switch: Switch) -> Telemetry:
    value = os.environ.get(switch.variable, "")
    off = value.strip().lower() in switch.off if switch.off else bool(value)
    if (switch.variable in _ours and value == "1") or (not off and _is_kept_out(switch.through)):
        return Telemetry(switch.package, True, "edgeseg")
    return Telemetry(switch.package, off, f"{switch.variable}={one_line(value, 20)} in the environment")


def _openvino() -> Telemetry:
    """Read OpenVINO's state. The user decides by the file that Intel's tool writes."""
    consent = _consent()
    if _is_kept_out(_SENDER):
        return Telemetry("openvino", True, "opt_in_out --opt_out" if consent == "0" else "edgeseg")
    if consent in ("0", "1"):
        return Telemetry("openvino", consent == "0", f"opt_in_out --opt_{'out' if consent == '0' else 'in'}")
    return Telemetry("openvino", False, f"{_SENDER} was imported before edgeseg")


def _is_kept_out(module: str) -> bool:
    return sys.modules.get(module, sys) is None


def _consent() -> str:
    """Read what the user chose with Intel's tool: ``1``, ``0``, or nothing."""
    try:
        home = Path(os.environ["LOCALAPPDATA"], "Intel Corporation") if os.name == "nt" else Path.home() / "intel"
        with (home / _SENDER).open(encoding="utf-8", errors="replace") as stream:
            return stream.readline(16).strip()
    except (OSError, KeyError, RuntimeError):
        return ""
