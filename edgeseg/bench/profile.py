"""Measure a machine profile: what ONNX Runtime gets through on this machine's CPU, as ``edgeseg export`` takes it.

Every rate is taken from one small graph that does little else: convolutions over maps that stay in a cache for what is
computed, an element-wise operator over a map that no cache holds for what is moved, convolutions of almost nothing for
what starting a node takes. Inputs and outputs are bound, so that no copy is timed. The profile holds the rates of all
threads together; those of one thread are measured and kept beside them. onnx (``pip install 'edgeseg[export]'``) builds
the graphs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import package_version, require
from edgeseg.bench.machine import Machine, describe_machine, device_state
from edgeseg.errors import UsageError
from edgeseg.fields import FieldError
from edgeseg.files import write_text
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.graph.profile import MachineProfile

__all__ = ["Figure", "MeasuredProfile", "Measurement", "machine_class", "measure_profile", "save_profile"]

MAP_MIB = 128
"""Size of the map that bandwidth is measured with; no CPU's last cache for one core is as large."""

_LEAST, _MOST = 5, 2000
"""Repeats of every graph."""
_WIDE_SPREAD = 0.2
"""Distance of the quartiles, relative to the median, from which a figure is warned of."""
_CHAIN, _NODES = 4, 64
"""Operators of one kind in a row, and of those that only have to be started."""
_SIZE, _NARROW, _WIDE = (32, 64), 64, 192
"""Height x width and channels of the maps: 3x3 on the narrow one computes as much as 1x1 on the wide one."""


@dataclass(frozen=True)
class Figure:
    """One measured rate (or seconds, of ``node_seconds``).

    Attributes:
        median: Of all repeats.
        spread: Distance between the quartiles, relative to the median.
        repeats: How often it was measured.
    """

    median: float
    spread: float
    repeats: int


@dataclass(frozen=True)
class Measurement:
    """All figures with one number of threads.

    Attributes:
        threads: Of ONNX Runtime.
        figures: ``dense_3x3``, ``dense_1x1``, and the other fields of `MachineProfile` by name.
    """

    threads: int
    figures: Mapping[str, Figure]

    @property
    def dense(self) -> float:
        """Rate over as many multiply-accumulates in 3x3 as in 1x1 convolutions."""
        return 2.0 / sum(1.0 / self.figures[name].median for name in ("dense_3x3", "dense_1x1"))


@dataclass(frozen=True)
class MeasuredProfile:
    """A profile and what it was made of.

    Attributes:
        profile: With the rates of the most threads measured.
        measurements: One per number of threads, fewest first.
        machine: Measured on.
        created: When, UTC.
        load: Runnable processes on average over the minute before, None where the system does not tell.
    """

    profile: MachineProfile
    measurements: tuple[Measurement, ...]
    machine: Machine
    created: str
    load: float | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that say why the figures may not repeat."""
        found = []
        if self.load is not None and self.load > 0.5 * (self.machine.usable_cores or 1):
            found.append(f"the machine was busy before measuring (load average {self.load:.2f})")
        for taken in self.measurements:
            wide = [name for name, figure in taken.figures.items() if figure.spread > _WIDE_SPREAD]
            if wide:
                found.append(f"with {_threads(taken.threads)} the quartiles of {', '.join(wide)} lie far apart")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: those of the profile, and what `load_profile` does not read."""
        taken = [asdict(measurement) for measurement in self.measurements]
        more = {"created": self.created, "machine": self.machine.to_json(), "measurements": taken}
        more["warnings"] = list(self.warnings)
        return {**self.profile.to_json(), **more}


@dataclass(frozen=True)
class _Workload:
    """A graph from v0 to y, and how much of what the figure counts one run of it does.

    Attributes:
        figure: Name of the figure.
        nodes: In ONNX's text form; the constant, if any, is w.
        shapes: Of v0 and y.
        work: Multiply-accumulates, weighted neighbours, bytes or nodes.
        constant: What w holds.
    """

    figure: str
    nodes: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    work: float
    constant: NDArray[np.float32] | None = None


def measure_profile(
    *,
    name: str | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
    map_mib: int = MAP_MIB,
    progress: Callable[[str], None] | None = None,
) -> MeasuredProfile:
    """Measure this machine with one thread and with `threads`.

    Args:
        name: Of the profile; None is the class of the machine and the number of threads.
        threads: Of ONNX Runtime; None is every core this process may use.
        seconds: To measure in all, if that gives five repeats of everything.
        map_mib: Size of the map that bandwidth is measured with, MiB.
        progress: Called with a few words before each part.

    Raises:
        UsageError: A name or number that a profile cannot hold.
        TargetUnavailableError: onnx or onnxruntime is not installed.
    """
    machine, load = describe_machine(), device_state().load_average
    most = machine.usable_cores or 1 if threads is None else threads
    name = f"{machine_class()}, {_threads(most)}" if name is None else name
    _check(name, most)
    if map_mib < 1 or seconds < 0.0:
        raise UsageError(f"map_mib is {map_mib} and seconds {seconds:g}; they must be at least 1 and 0")
    counts = sorted({1, most})
    models = [(workload, _model(workload)) for workload in _workloads(map_mib)]
    share = seconds / (len(models) * len(counts))
    measurements = []
    for count in counts:
        if progress:
            progress(f"measuring with {_threads(count)}")
        figures = {workload.figure: _measured(workload, model, count, share) for workload, model in models}
        measurements.append(Measurement(count, figures))
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    profile = _profile(measurements[-1], name, machine, created)
    return MeasuredProfile(profile, tuple(measurements), machine, created, load)


def save_profile(path: Path, measured: MeasuredProfile) -> None:
    """Write a file that ``edgeseg export --machine-profile`` takes; it appears whole or not at all.

    Raises:
        StorageError: Writing failed.
    """
    write_text(path, json.dumps(measured.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def machine_class(root: Path = Path("/")) -> str:
    """Name the class of this machine's processor by the vectors it has, such as ``x86-avx2``.

    Args:
        root: Where ``proc`` lies; another folder than ``/`` is for tests.
    """
    architecture = describe_machine(root).architecture.lower()
    if architecture in ("aarch64", "arm64"):
        return "arm-neon"
    if architecture not in ("x86_64", "amd64"):
        return architecture or "unknown"
    try:
        words = set(
            re.findall(r"^flags\s*:(.*)$", (root / "proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)[0].split()
        )
    except (OSError, IndexError):
        words = set()
    return "x86-avx512" if "avx512f" in words else "x86-avx2" if "avx2" in words else "x86"


def _check(name: str, threads: int) -> None:
    """Refuse before the work what could not be read back."""
    from edgeseg.graph.profile import DEFAULT_PROFILE, MachineProfile, load_profile

    try:
        MachineProfile.from_json({**load_profile(DEFAULT_PROFILE).to_json(), "name": name, "threads": threads})
    except FieldError as error:
        raise UsageError(f"the profile's {error}") from error


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _profile(found: Measurement, name: str, machine: Machine, created: str) -> MachineProfile:
    from edgeseg.graph.profile import MachineProfile

    many = _threads(found.threads)
    versions = f"edgeseg {package_version('edgeseg')}, ONNX Runtime {package_version('onnxruntime')}"
    source = f"Measured by `edgeseg benchmark profile` ({versions}, {many}) on {machine.line()}, {created}."
    rates = {key: found.figures[key].median for key in ("channelwise", "interpolation", "bandwidth", "node_seconds")}
    return MachineProfile(
        name=name,
        threads=found.threads,
        dense=_rounded(found.dense),
        source=one_line(source, 1000),
        **rates,
    )


def _workloads(map_mib: int) -> tuple[_Workload, ...]:
    height, width = _SIZE
    plane = height * width
    narrow, wide, tiny = (1, _NARROW, height, width), (1, _WIDE, height, width), (1, 16, 4, 4)
    twice = (1, _NARROW, 2 * height, 2 * width)
    large = (map_mib, 512, 512)  # a MiB each of fp32
    full, point, thin = _weights(_NARROW, _NARROW, 3, 3), _weights(_WIDE, _WIDE, 1, 1), _weights(_NARROW, 1, 3, 3)
    square, through = _chain(_CHAIN, "Conv<pads=[1,1,1,1]>", ", w"), _chain(_CHAIN, "Conv", ", w")
    depthwise = _chain(_CHAIN, f"Conv<pads=[1,1,1,1], group={_NARROW}>", ", w")
    resize, scales = _chain(1, 'Resize<mode="linear">', ", , w"), np.array([1, 1, 2, 2], np.float32)
    starts = _chain(_NODES, "Conv", ", w")
    return (
        _Workload("dense_3x3", square, (narrow, narrow), _CHAIN * plane * full.size, full),
        _Workload("dense_1x1", through, (wide, wide), _CHAIN * plane * point.size, point),
        _Workload("channelwise", depthwise, (narrow, narrow), _CHAIN * plane * thin.size, thin),
        _Workload("interpolation", resize, (narrow, twice), 4 * prod(twice), scales),
        _Workload("bandwidth", _chain(1, "Relu"), (large, large), 2 * 4 * prod(large)),
        _Workload("node_seconds", starts, (tiny, tiny), _NODES, _weights(16, 16, 1, 1)),
    )


def _chain(count: int, operator: str, more: str = "") -> str:
    """Write the nodes of a graph from v0 to y."""
    names = [*(f"v{index}" for index in range(count)), "y"]
    return " ".join(f"{after} = {operator}({before}{more})" for before, after in pairwise(names))


def _weights(*shape: int) -> NDArray[np.float32]:
    """Return weights that average, so that a chain of convolutions neither overflows nor vanishes."""
    return np.full(shape, 1.0 / prod(shape[1:]), np.float32)


def _model(workload: _Workload) -> bytes:
    """Build the ONNX file of a workload."""
    require("onnx", extra="export", why="measuring a machine profile")
    from onnx import checker, numpy_helper, parser

    before, after = (",".join(map(str, shape)) for shape in workload.shapes)
    ends = f"(float[{before}] v0) => (float[{after}] y)"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {ends} {{ {workload.nodes} }}')
    if workload.constant is not None:
        model.graph.initializer.append(numpy_helper.from_array(workload.constant, "w"))
    checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def _measured(workload: _Workload, model: bytes, threads: int, seconds: float) -> Figure:
    """Run a workload again and again with so many threads for so long."""
    run = _runner(workload, model, threads)
    for _ in range(2):  # the first ones allocate
        run()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < _LEAST or (time.perf_counter() < end and len(taken) < _MOST):
        start = time.perf_counter()
        run()
        taken.append(max(time.perf_counter() - start, 1e-9))
    each = np.array(taken) / workload.work
    low, middle, high = np.percentile(each if workload.figure == "node_seconds" else 1.0 / each, (25, 50, 75))
    return Figure(_rounded(middle), _rounded((high - low) / middle), len(taken))


def _runner(workload: _Workload, model: bytes, threads: int) -> Callable[[], None]:
    """Open a workload in ONNX Runtime with its input and output bound, so that running it copies nothing."""
    ort = require("onnxruntime", extra="", why="measuring a machine profile")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given, got = (np.ones(shape, np.float32) for shape in workload.shapes)
    binding = session.io_binding()
    binding.bind_ortvalue_input("v0", ort.OrtValue.ortvalue_from_numpy(given))
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(got))
    return lambda: session.run_with_iobinding(binding)


def _rounded(value: float) -> float:
    """Round to four digits; more say nothing."""
    return float(f"{value:.4g}")
