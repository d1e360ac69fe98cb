"""What a check found, and how checks run one after the other until the time is used up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from edgeseg.errors import EdgesegError, TargetUnavailableError

__all__ = ["AbsentError", "Check", "Finding", "Findings", "Outcome", "Verdict", "verdict_of"]

Status = Literal["passed", "failed", "absent", "left out"]
Verdict = Literal["passed", "failed", "incomplete"]


class AbsentError(Exception):
    """What is to be checked is not there on this machine; its text says why."""


@dataclass(frozen=True)
class Outcome:
    """What a check gives: whether it passed, in words, and figures.

    Attributes:
        passed: Whether all is as it must be.
        told: What was seen.
        figures: Plain JSON values.
    """

    passed: bool
    told: str
    figures: Mapping[str, Any] = field(default_factory=dict)


Check: TypeAlias = tuple[str, "float | Callable[[], float]", Callable[[], Outcome]]
"""A name, the seconds that it takes at most as far as can be told then, and the check."""


@dataclass(frozen=True)
class Finding:
    """A check's name and what came of it.

    Attributes:
        check: Name.
        status: ``absent`` is what this machine does not have, ``left out`` what there was no time for, or what another
            check's failure made impossible. Neither passed.
        told: In words.
        seconds: It took.
        figures: Plain JSON values.
    """

    check: str
    status: Status
    told: str
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status}: {self.check}: {self.told}"


@dataclass
class Findings:
    """Runs checks and keeps what they found.

    Args:
        ends: When the time is used up, as `time.monotonic` tells it.
        told: Called with each finding.
    """

    ends: float
    told: Callable[[Finding], None]
    found: list[Finding] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)

    def run(self, checks: Sequence[Check]) -> None:
        """Run checks in their order; the first of them is what the others stand on.

        Raises:
            TargetUnavailableError: The machine lacks what all of them need.
        """
        self._waiting = [name for name, _, _ in checks]
        for number, (name, needed, check) in enumerate(checks):
            left = self.ends - time.monotonic()
            seconds = needed() if callable(needed) else needed
            if seconds > left:
                self.add(Finding(name, "left out", f"it may take {seconds:.0f} s and {max(0.0, left):.0f} s are left"))
            else:
                self.add(_run(name, check))
            if number == 0 and self.found[-1].status != "passed":
                self.leave_out(f"it needs '{name}', which {_became(self.found[-1].status)}")
                return

    def leave_out(self, why: str) -> None:
        """Say of every check that has not ended why it is left out."""
        for name in list(self._waiting):
            self.add(Finding(name, "left out", why))

    def add(self, finding: Finding) -> None:
        """Keep a finding, and tell it."""
        self.found.append(finding)
        if finding.check in self._waiting:
            self._waiting.remove(finding.check)
        self.told(finding)

    def to_json(self) -> list[dict[str, Any]]:
        """Convert to plain JSON values."""
        return [asdict(finding) for finding in self.found]


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """``failed`` where one failed, ``incomplete`` where one was left out or nothing was checked, else ``passed``."""
    kinds = {finding.status for finding in findings}
    if "failed" in kinds:
        return "failed"
    return "incomplete" if "left out" in kinds or "passed" not in kinds else "passed"


def _became(status: Status) -> str:
    return "was left out" if status == "left out" else "is absent" if status == "absent" else "failed"


def _run(name: str, check: Callable[[], Outcome]) -> Finding:
    started = time.monotonic()
    try:
        outcome = check()
    except AbsentError as absent:
        return Finding(name, "absent", str(absent), time.monotonic() - started)
    except TargetUnavailableError:
        raise
    except EdgesegError as error:
        return Finding(name, "failed", str(error), time.monotonic() - started)
    status: Status = "passed" if outcome.passed else "failed"
    return Finding(name, status, outcome.told, time.monotonic() - started, dict(outcome.figures))
