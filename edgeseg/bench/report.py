"""The report of a benchmark, and the JSON file that stores it (docs/benchmark-schema.md). Raw samples are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgeseg.bench.machine import DeviceState, Machine
from edgeseg.bench.memory import MemoryUse
from edgeseg.bench.stats import CI_METHOD, Summary, drift, summarize
from edgeseg.errors import InputError, UsageError
from edgeseg.files import write_text
from edgeseg.runtimes._base import SessionInfo
from edgeseg.runtimes.times import EngineTimes
from edgeseg.specs import Size
from edgeseg.text import os_reason

__all__ = [
    "KIND",
    "SCHEMA_VERSION",
    "STAGES",
    "TOTAL",
    "BenchmarkReport",
    "BundleIdentity",
    "Settings",
    "Warmup",
    "from_json",
    "load_reports",
    "save_reports",
    "to_json",
]

KIND = "edgeseg-benchmark"
SCHEMA_VERSION = 2
"""Raised when a file of this version cannot be read by an edgeseg that knows only the version before."""

TOTAL = "total"
STAGES = ("decode", "pre", "infer", "postprocess", TOTAL)
"""Stages in the order a frame passes them; ``total`` is the wall clock around all of them."""


@dataclass(frozen=True)
class BundleIdentity:
    """The bundle that was measured.

    Attributes:
        name: Of the bundle.
        network: Registry name.
        input_size: Height x width of the graph's input.
        precision: Of the numbers in the graph.
        manifest_sha256: Of ``manifest.json``, which itself lists the SHA-256 of every file.
    """

    name: str
    network: str
    input_size: Size
    precision: str
    manifest_sha256: str

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BundleIdentity:
        """Read what ``asdict`` gave."""
        size = _size(data["input_size"])
        return cls(data["name"], data["network"], size, data["precision"], data["manifest_sha256"])


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        min_samples: Frames measured at the least.
        max_samples: Frames measured at the most.
        seconds: Time after which measuring ends once there are `min_samples`.
        warmup_frames: Frames after which warming up ends though not stable.
        warmup_seconds: Time after which warming up ends though not stable.
        tolerance: Relative change of the medians of two consecutive windows below which the timing is stable.

    Example:
        >>> Settings(seconds=2.0).min_samples
        50
    """

    min_samples: int = 50
    max_samples: int = 1000
    seconds: float = 10.0
    warmup_frames: int = 200
    warmup_seconds: float = 10.0
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        if not 1 <= self.min_samples <= self.max_samples:
            raise UsageError(
                f"got min_samples {self.min_samples} and max_samples {self.max_samples}; "
                "expected at least 1, and the first not above the second"
            )
        others = (self.seconds, self.warmup_seconds, self.warmup_frames, self.tolerance)
        if not all(math.isfinite(value) and value >= 0 for value in others):
            raise UsageError(f"seconds, warmup_seconds, warmup_frames, tolerance are {others}; each must be 0 or more")


@dataclass(frozen=True)
class Warmup:
    """The course of the warm-up.

    Attributes:
        frames: Frames run before measuring, the first one not counted.
        seconds: Time they took.
        window: Frames per window.
        change: Relative change between the medians of the last two windows; None if there were not two.
        stable: Whether that change was within the tolerance.
    """

    frames: int
    seconds: float
    window: int
    change: float | None
    stable: bool


@dataclass(frozen=True)
class BenchmarkReport:
    """One bundle on one target on one machine. Times are milliseconds.

    Attributes:
        bundle: What was measured.
        target: Canonical target name.
        session: What really ran, as the engine reports it.
        options: The runtime options that were set.
        settings: How it was measured.
        own_process: Whether a process of its own did it (the default), where nothing else had been loaded.
        images: Number of different pictures, taken in turn.
        source_sizes: Height x width of those pictures, each once; labels are made at this size.
        load_ms: Opening the bundle (every file checked against its SHA-256) and the engine; with a process of its own
            this includes importing the engine.
        first_ms: First frame, all stages.
        first_infer_ms: Its inference alone.
        warmup: How warming up went.
        samples: Stage -> one value per frame, in the order they were measured.
        elapsed_s: Wall clock of the measured frames together.
        memory: Of the process.
        machine: Where it ran.
        before: Load, clock and temperature before measuring.
        after: The same after it.
        created: UTC, ISO 8601.
        edgeseg: Version of edgeseg.
        engine: The engine alone, without copies; None for one that does not time itself.

    Example:
        >>> from edgeseg.bench import benchmark
        >>> report = benchmark(bundle, in_process=True, min_samples=3, max_samples=3, warmup_frames=0)
        >>> report.stages["total"].n, report.own_process
        (3, False)
    """

    bundle: BundleIdentity
    target: str
    session: SessionInfo
    settings: Settings
    images: int
    source_sizes: tuple[Size, ...]
    load_ms: float
    first_ms: float
    first_infer_ms: float
    warmup: Warmup
    samples: Mapping[str, Sequence[float]]
    elapsed_s: float
    memory: MemoryUse
    machine: Machine
    before: DeviceState
    after: DeviceState
    created: str
    edgeseg: str
    own_process: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    engine: EngineTimes | None = None

    @property
    def stages(self) -> dict[str, Summary]:
        """Stage -> summary of its samples, in the order a frame passes them."""
        known = [stage for stage in STAGES if stage in self.samples]
        return {stage: summarize(self.samples[stage]) for stage in known}

    @property
    def throughput(self) -> float:
        """Frames per second, one after the other."""
        return len(self.samples[TOTAL]) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def drift(self) -> float:
        """Later half's median of the total over the earlier half's; see `edgeseg.bench.stats.drift`."""
        return drift(self.samples[TOTAL])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that say why the figures may not repeat."""
        warnings = list(self.session.notes)
        if not self.warmup.stable:
            warnings.append(f"the timing had not become stable after {self.warmup.frames} warm-up frames")
        if abs(self.drift - 1.0) > 0.05:
            warnings.append(f"the later half of the frames took {self.drift:.2f} times as long as the earlier half")
        cores = self.machine.usable_cores
        if self.before.load_average is not None and cores and self.before.load_average > 0.5 * cores:
            warnings.append(f"the machine was busy before measuring (load average {self.before.load_average:.2f})")
        return tuple(warnings)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values; `stages` and `throughput` are for readers, and computed anew when read."""
        data = asdict(self)
        data["samples"] = {stage: [round(value, 4) for value in values] for stage, values in self.samples.items()}
        data["stages"] = {stage: summary.to_json() for stage, summary in self.stages.items()}
        return {**data, "ci_method": CI_METHOD, "throughput_fps": self.throughput, "drift": self.drift}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BenchmarkReport:
        """Read what `to_json` gave; unknown keys are ignored.

        Raises:
            InputError: A field that is missing or of the wrong kind.
        """
        try:
            return _report_from(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"a benchmark report lacks or garbles a field ({error!r}); measure again") from error


_T = TypeVar("_T", SessionInfo, Settings, Warmup)


def to_json(reports: Iterable[BenchmarkReport]) -> dict[str, Any]:
    """Convert several reports to the content of one file."""
    return {"kind": KIND, "schema_version": SCHEMA_VERSION, "reports": [report.to_json() for report in reports]}


def from_json(data: object) -> tuple[BenchmarkReport, ...]:
    """Read what `to_json` gave.

    Raises:
        InputError: Not a benchmark, a newer schema, no report, or a field that is missing or has a wrong value.
    """
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise InputError(f"the JSON is not a benchmark (kind '{KIND}'); expected a file of `edgeseg benchmark --save`")
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError("the benchmark has no schema_version; expected a file of `edgeseg benchmark --save`")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"the benchmark has schema version {version}, this edgeseg reads up to {SCHEMA_VERSION}; update edgeseg"
        )
    reports = data.get("reports")
    if not isinstance(reports, list) or not reports:
        raise InputError("the benchmark holds no reports; measure again")
    if version < SCHEMA_VERSION:
        reports = [_renamed(entry) for entry in reports]
    return tuple(BenchmarkReport.from_json(entry) for entry in reports)


def save_reports(path: Path, reports: Iterable[BenchmarkReport]) -> None:
    """Write a benchmark file, whole or not at all.

    Raises:
        StorageError: Writing failed.

    Example:
        >>> from edgeseg.bench import benchmark
        >>> report = benchmark(bundle, in_process=True, min_samples=3, max_samples=3, warmup_frames=0)
        >>> save_reports(folder / "report.json", [report])
        >>> load_reports(folder / "report.json")[0].bundle.name
        'tiny'
    """
    write_text(path, json.dumps(to_json(reports), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def load_reports(path: Path) -> tuple[BenchmarkReport, ...]:
    """Read a benchmark file.

    Raises:
        InputError: No such file, not JSON, or not a benchmark this edgeseg reads; the message names the file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = os_reason(error)
        raise InputError(f"cannot read '{path}': {reason}; expected a file of `edgeseg benchmark --save`") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON ({error}); expected a file of `edgeseg benchmark --save`") from error
    try:
        return from_json(data)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from error


def _renamed(entry: Any) -> Any:
    """Rename the stages of a report of schema version 1, whose ``tail`` is ``postprocess`` now."""
    if not isinstance(entry, dict) or not isinstance(entry.get("samples"), dict):
        return entry
    return {**entry, "samples": {_RENAMED.get(name, name): values for name, values in entry["samples"].items()}}


_RENAMED = {"tail": "postprocess"}


def _report_from(data: Mapping[str, Any]) -> BenchmarkReport:
    return BenchmarkReport(
        bundle=BundleIdentity.from_json(data["bundle"]),
        target=str(data["target"]),
        session=_session(data["session"]),
        settings=_build(Settings, data["settings"]),
        images=int(data["images"]),
        source_sizes=tuple(_size(size) for size in data["source_sizes"]),
        load_ms=float(data["load_ms"]),
        first_ms=float(data["first_ms"]),
        first_infer_ms=float(data["first_infer_ms"]),
        warmup=_build(Warmup, data["warmup"]),
        samples=_samples(data["samples"]),
        elapsed_s=float(data["elapsed_s"]),
        memory=MemoryUse.from_json(data["memory"]),
        machine=Machine.from_json(data["machine"]),
        before=DeviceState.from_json(data["before"]),
        after=DeviceState.from_json(data["after"]),
        created=str(data["created"]),
        edgeseg=str(data["edgeseg"]),
        own_process=bool(data["own_process"]),
        options=dict(data["options"]),
        engine=None if data.get("engine") is None else EngineTimes.from_json(data["engine"]),
    )


def _build(kind: type[_T], data: Mapping[str, Any]) -> _T:
    known = {name: value for name, value in data.items() if name in kind.__dataclass_fields__}
    return kind(**known)


def _session(data: Mapping[str, Any]) -> SessionInfo:
    return _build(SessionInfo, {**data, "notes": tuple(data["notes"]), "mode": tuple(data.get("mode", ()))})


def _samples(data: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    samples = {str(stage): tuple(float(value) for value in values) for stage, values in data.items()}
    lengths = {len(values) for values in samples.values()}
    if TOTAL not in samples or len(lengths) != 1 or 0 in lengths:
        raise ValueError("samples need 'total', and as many values in every stage")
    if not all(math.isfinite(value) and value >= 0.0 for values in samples.values() for value in values):
        raise ValueError("samples must be finite and not negative")
    return samples


def _size(value: Sequence[int]) -> Size:
    height, width = value
    return int(height), int(width)
