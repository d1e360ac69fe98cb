"""All checks of a GPU under one limit of time, with a file that is whole after each of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import edgeseg
from edgeseg.bench.gpu.driver import driver_checks
from edgeseg.bench.gpu.engine import Budget, EngineCheck
from edgeseg.bench.gpu.findings import Finding, Findings, Verdict, verdict_of
from edgeseg.bench.machine import Machine, describe_machine, device_state
from edgeseg.bundle import Bundle, open_bundle
from edgeseg.errors import ParityError, PartialFailureError, TargetUnavailableError, UsageError
from edgeseg.files import write_text
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.environment import check_capability
from edgeseg.runtimes.tensorrt.packages import rtx_module
from edgeseg.text import one_line

__all__ = ["KIND", "GpuCheck", "GpuCheckSettings", "check_gpu"]

KIND = "edgeseg-gpu-check"
_OLDEST_TRT = 7.5
_WORDS = {"passed": "passed", "failed": "failed", "incomplete": "incomplete: nothing failed, and not all was checked"}


@dataclass(frozen=True, kw_only=True)
class GpuCheckSettings:
    """How a GPU is checked.

    Attributes:
        target: ``trt`` or ``trt-rtx``.
        device: The GPU's number; by default the first.
        budget: Seconds that all of it may take. When they are over the process ends, whatever runs.
        limits: What labels and logits are held to; by default by each bundle's precision.
        repeat: Runs timed.
        cache_dir: Folder of the plans; by default one that is removed, so that every plan is built.
    """

    target: str = "trt"
    device: str | None = None
    budget: float = 1500.0
    limits: Budget | None = None
    repeat: int = 100
    cache_dir: Path | None = None


@dataclass
class GpuCheck:
    """What was found on a GPU.

    Attributes:
        gpu: Name and compute capability.
        machine: What it was found on.
        findings: Of the driver (``""``) and of each bundle, by its path.
        bundles: What each bundle is and what ran.
    """

    gpu: str
    machine: Machine
    findings: dict[str, Findings] = field(default_factory=dict)
    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @property
    def verdict(self) -> Verdict:
        """Of all of them."""
        return verdict_of([finding for each in self.findings.values() for finding in each.found])

    @property
    def exit_code(self) -> int:
        """0 where all passed, 4 where something failed, 9 where something was left out."""
        codes = {"passed": 0, "failed": ParityError.exit_code, "incomplete": PartialFailureError.exit_code}
        return codes[self.verdict]

    def check(self) -> None:
        """Refuse a GPU where not all passed.

        Raises:
            ParityError: Something failed.
            PartialFailureError: Nothing failed, and something was left out.
        """
        kinds = {"failed": ParityError, "incomplete": PartialFailureError}
        if self.verdict != "passed":
            raise kinds[self.verdict](f"{self.line()}; see the lines above")

    def line(self) -> str:
        """The verdict in one line."""
        found = [finding for each in self.findings.values() for finding in each.found]
        counts = {
            status: sum(f.status == status for f in found) for status in ("passed", "failed", "absent", "left out")
        }
        return f"{self.gpu}: {_WORDS[self.verdict]} ({', '.join(f'{n} {name}' for name, n in counts.items() if n)})"

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return {
            "kind": KIND,
            "schema_version": 1,
            "edgeseg": edgeseg.__version__,
            "created": self.created,
            "verdict": self.verdict,
            "gpu": self.gpu,
            "machine": self.machine.to_json(),
            "driver": self.findings[""].to_json() if "" in self.findings else [],
            "bundles": [
                {"path": name, **self.bundles.get(name, {}), "findings": found.to_json()}
                for name, found in self.findings.items()
                if name
            ],
        }


def check_gpu(
    bundles: Sequence[Path],
    settings: GpuCheckSettings | None = None,
    *,
    save: Path | None = None,
    told: Callable[[str, Finding], None] = lambda name, finding: None,
) -> GpuCheck:
    """Check a GPU: the driver and the label kernel, then each bundle. Ends the process when the time is over.

    Args:
        bundles: ``NAME.edgeseg`` folders exported for the target; none to check the driver and the kernel alone.
        settings: How to check.
        save: JSON file, written after each check.
        told: Called with the bundle's path (``""`` for the driver) and each finding.

    Raises:
        TargetUnavailableError: No GPU, one that the target does not know, or no TensorRT.
        BundleError: A bundle that is missing or damaged.
        UsageError: A bundle that is named twice.
    """
    chosen = settings or GpuCheckSettings()
    ends = time.monotonic() + chosen.budget
    twice = next((path for path in bundles if list(bundles).count(path) > 1), None)
    if twice is not None:
        raise UsageError(f"bundle '{one_line(twice)}' is named twice; name it once")
    opened = [open_bundle(path) for path in bundles]
    gpu = cuda.open_device(chosen.device)
    if opened:
        _check_known(chosen.target, gpu.gpu)
    checked = GpuCheck(str(gpu.gpu), describe_machine())
    run = Run(checked, ends, save, told)
    with ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeseg-plans-")))
        waiting = [str(bundle.path) for bundle in opened]
        stack.enter_context(closing(Watch(max(0.0, ends - time.monotonic()), run, waiting, own)))
        run.start("").run(driver_checks(gpu))
        folder = chosen.cache_dir or own
        for bundle in opened:
            waiting.remove(str(bundle.path))
            check = EngineCheck(bundle, chosen.target, gpu, folder, repeat=chosen.repeat, budget=chosen.limits)
            _check_bundle(run, check, bundle)
    return checked


def _check_bundle(run: Run, check: EngineCheck, bundle: Bundle) -> None:
    name = str(bundle.path)
    state = {"before": device_state().to_json()}
    with closing(check):
        run.checked.bundles[name] = check.describe() | state
        run.start(name).run(check.checks())
        run.checked.bundles[name] = check.describe() | state | {"after": device_state().to_json()}
        run.save()


class Run:
    """What is found, told and saved as it comes."""

    def __init__(self, checked: GpuCheck, ends: float, file: Path | None, told: Callable[[str, Finding], None]) -> None:
        self.checked, self._ends, self._file, self._told = checked, ends, file, told
        self.lock = threading.RLock()
        self.current = Findings(ends, lambda finding: None)

    def start(self, name: str) -> Findings:
        """Begin the checks of the driver (``""``) or of a bundle."""

        def keep(finding: Finding) -> None:
            with self.lock:
                self._told(name, finding)
                self.save()

        self.current = self.checked.findings[name] = Findings(self._ends, keep)
        return self.current

    def save(self) -> None:
        """Write what was found until now."""
        if self._file is not None:
            with self.lock:
                write_text(self._file, json.dumps(self.checked.to_json(), indent=2) + "\n")


class Watch:
    """Ends the process when the time is over: a build of TensorRT cannot be interrupted otherwise.

    Args:
        seconds: Until then.
        run: What was found until then.
        waiting: Bundles whose checks have not begun.
        folder: What is removed.
        leave: Ends the process.
    """

    def __init__(
        self,
        seconds: float,
        run: Run,
        waiting: Sequence[str] = (),
        folder: Path | None = None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._run, self._waiting, self._folder, self._leave = run, waiting, folder, leave
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def _end(self) -> None:
        with self._run.lock:
            self._run.current.leave_out("the time was over while it ran or before")
            for name in self._waiting:
                self._run.start(name).add(Finding("all", "left out", "the time was over before"))
            checked = self._run.checked
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            print(f"edgeseg: {checked.line()}; see the lines above", file=sys.stderr, flush=True)
            self._leave(checked.exit_code)

    def close(self) -> None:
        """All is done in time."""
        self._timer.cancel()


def _check_known(target: str, gpu: cuda.GpuInfo) -> None:
    """Refuse a GPU that the target does not know.

    Raises:
        TargetUnavailableError: Says what to use.
    """
    if target == "trt-rtx":
        check_capability(rtx_module(), gpu)
    elif float(gpu.compute_capability) < _OLDEST_TRT:
        raise TargetUnavailableError(
            f"{gpu} is older than compute capability {_OLDEST_TRT}, the first that the trt target runs on; use the "
            "target ort"
        )
