"""The latency harness: one bundle on one target, from picture file to labels, split into stages, in a separate process.

Times come from the Predictor itself (with ``keep_image=False``), so what is measured is what users run. Inference
includes the copies to and from the device; arrays that are back have synchronised it. Every target gets a fresh
process, because the thread pool of an idle engine slows the next one (docs/speed.md).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import package_version
from edgeseg.bench.machine import describe_machine, device_state
from edgeseg.bench.memory import MemoryUse, peak_mib, resident_mib
from edgeseg.bench.report import STAGES, TOTAL, BenchmarkReport, BundleIdentity, Settings, Warmup
from edgeseg.bundle import MANIFEST, Bundle, open_bundle
from edgeseg.errors import InputError, UnknownNameError, UsageError
from edgeseg.files import sha256_of
from edgeseg.results import Result
from edgeseg.runtimes import RuntimeOptions, SessionInfo, resolve_target
from edgeseg.runtimes.times import EngineTimes
from edgeseg.specs import Size

__all__ = ["Image", "Measurable", "benchmark", "collect", "measure", "run_benchmark", "warm_up"]

Image: TypeAlias = "str | Path | NDArray[np.uint8]"
Frame: TypeAlias = "Mapping[str, float]"
Clock: TypeAlias = "Callable[[], float]"


class Measurable(Protocol):
    """What the harness needs from a Predictor."""

    @property
    def info(self) -> SessionInfo:
        """What runs, as the engine reports it."""
        ...

    def __call__(self, source: Any, /) -> Result:
        """Predict one picture; the result's timings hold the stages in milliseconds."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


@runtime_checkable
class _TimesItsEngine(Protocol):
    """A Predictor that may time its engine alone."""

    def engine_times(self, frame: Any, *, repeat: int) -> EngineTimes | None: ...


def benchmark(bundle: str | Path | Bundle, target: str = "ort", **options: Any) -> BenchmarkReport:
    """Measure a bundle's latency on a target, from picture file to labels at the picture's size.

    Args:
        bundle: The ``NAME.edgeseg`` folder, or an opened bundle.
        target: Target name or alias.
        options: Any field of `RuntimeOptions` (``threads=2``), any field of `Settings` (``seconds=5``), ``images`` and
            ``in_process`` as `run_benchmark` takes them.

    Returns:
        The report: summaries per stage, raw samples, load and first-frame time, memory, machine.

    Raises:
        UnknownNameError: An option or target that does not exist.
        EdgesegError: As `run_benchmark`.

    Example:
        >>> report = benchmark(bundle, in_process=True, min_samples=3, max_samples=3, warmup_frames=0)
        >>> report.target, list(report.stages)
        ('ort', ['decode', 'pre', 'infer', 'postprocess', 'total'])
    """
    runtime, settings = ({field.name for field in fields(kind)} for kind in (RuntimeOptions, Settings))
    others = {"images", "in_process"}
    for name in options:
        if name not in runtime | settings | others:
            raise UnknownNameError("benchmark option", name, runtime | settings | others)
    return run_benchmark(
        bundle,
        target,
        options=RuntimeOptions(**{name: value for name, value in options.items() if name in runtime}),
        settings=Settings(**{name: value for name, value in options.items() if name in settings}),
        **{name: value for name, value in options.items() if name in others},
    )


def run_benchmark(
    bundle: str | Path | Bundle,
    target: str = "ort",
    *,
    images: Sequence[Image] | None = None,
    options: RuntimeOptions | None = None,
    settings: Settings | None = None,
    in_process: bool = False,
) -> BenchmarkReport:
    """Measure a bundle's latency on a target.

    Args:
        bundle: The ``NAME.edgeseg`` folder, or an opened bundle.
        target: Target name or alias.
        images: Picture files (decoding is then measured) or uint8 arrays as the Predictor takes them, taken in turn;
            None is the bundle's own sample picture.
        options: How the engine is to run.
        settings: How to measure.
        in_process: Measure in this process; other engines and threads of it then disturb the figures.

    Raises:
        UsageError: An unknown target, no pictures, or files and arrays mixed.
        BundleError: A bundle that is missing or damaged, or lacks a sample picture.
        InputError: A picture that cannot be read.
        TargetUnavailableError: The machine lacks what the target needs.
        EdgesegError: The measuring process ended without an answer (killed, out of memory).

    Example:
        >>> settings = Settings(min_samples=3, max_samples=3, warmup_frames=0)
        >>> len(run_benchmark(bundle, settings=settings, in_process=True).samples["total"])
        3
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, check=False)  # checked where it is loaded
    name, pictures = resolve_target(target), _pictures(opened, images)
    options, settings = options or RuntimeOptions(), settings or Settings()
    if in_process:
        return measure(opened, name, pictures, options=options, settings=settings)
    from edgeseg.bench.isolated import measure_in_own_process

    return measure_in_own_process(opened, name, pictures, options=options, settings=settings)


def measure(
    bundle: Bundle,
    target: str,
    images: Sequence[Image],
    *,
    options: RuntimeOptions,
    settings: Settings,
    own_process: bool = False,
    opener: Callable[[Bundle, str, RuntimeOptions], Measurable] | None = None,
    clock: Clock = time.perf_counter,
) -> BenchmarkReport:
    """Measure in this process.

    Args:
        bundle: An opened bundle.
        target: Canonical target name.
        images: Pictures that exist.
        options: How the engine is to run.
        settings: How to measure.
        own_process: Recorded in the report only.
        opener: Opens the predictor; None opens `edgeseg.predictor.Predictor`.
        clock: Seconds, monotone.

    Raises:
        EdgesegError: As `run_benchmark`.
    """
    resident = resident_mib()
    start = clock()
    predictor = (opener or _open_predictor)(bundle, target, options)
    load_ms = 1000.0 * (clock() - start)
    try:
        loaded = resident_mib()
        figures = _run(predictor, images, settings, clock)
        return BenchmarkReport(
            bundle=_identity(bundle, predictor.info.target),
            target=target,
            session=predictor.info,
            settings=settings,
            images=len(images),
            load_ms=load_ms,
            memory=MemoryUse(resident, loaded, peak_mib()),
            machine=describe_machine(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            edgeseg=package_version("edgeseg"),
            own_process=own_process,
            options=_set_options(options),
            engine=_engine_times(predictor, images[0], settings),
            **figures,
        )
    finally:
        predictor.close()


def _run(predictor: Measurable, images: Sequence[Image], settings: Settings, clock: Clock) -> dict[str, Any]:
    """Run the first frame, the warm-up and the measurement; return the fields of the report that they fill."""
    frames = _Frames(predictor, images, clock)
    first = next(frames)
    before = device_state()
    warmup = warm_up(frames, settings, window=_window(len(images)), clock=clock)
    samples, elapsed = collect(frames, settings, clock=clock)
    return {
        "source_sizes": tuple(frames.sizes),
        "first_ms": first[TOTAL],
        "first_infer_ms": first.get("infer", 0.0),
        "warmup": warmup,
        "samples": samples,
        "elapsed_s": elapsed,
        "before": before,
        "after": device_state(),
    }


def warm_up(frames: Iterator[Frame], settings: Settings, *, window: int, clock: Clock = time.perf_counter) -> Warmup:
    """Run frames until the median of the total hardly changes from one window to the next.

    Args:
        frames: Endless; each item is one frame's milliseconds per stage.
        settings: Tolerance and limits. A window that has begun is finished whatever the limits say.
        window: Frames per window.
        clock: Seconds, monotone.
    """
    start, count = clock(), 0
    last: float | None = None
    change: float | None = None
    while count + window <= settings.warmup_frames and clock() - start < settings.warmup_seconds:
        median = float(np.median([frame[TOTAL] for frame in itertools.islice(frames, window)]))
        count += window
        change = None if last is None else abs(median - last) / last if last > 0.0 else 0.0
        if change is not None and change < settings.tolerance:
            return Warmup(count, clock() - start, window, change, stable=True)
        last = median
    return Warmup(count, clock() - start, window, change, stable=False)


def collect(
    frames: Iterator[Frame], settings: Settings, *, clock: Clock = time.perf_counter
) -> tuple[dict[str, list[float]], float]:
    """Measure until there are enough samples and enough time has passed, or as many samples as allowed.

    Returns:
        Stage -> milliseconds per frame in order; seconds that passed.
    """
    samples: dict[str, list[float]] = {}
    start, elapsed = clock(), 0.0
    for count in itertools.count(1):
        for stage, value in next(frames).items():
            samples.setdefault(stage, []).append(value)
        elapsed = clock() - start
        if count >= settings.max_samples or (count >= settings.min_samples and elapsed >= settings.seconds):
            break
    return samples, elapsed


class _Frames:
    """Endless frames. Each item is one picture's milliseconds per stage; ``total`` is the wall clock around them."""

    def __init__(self, predictor: Measurable, images: Sequence[Image], clock: Clock) -> None:
        self._predictor, self._images, self._clock = predictor, itertools.cycle(images), clock
        arrays = isinstance(images[0], np.ndarray)
        self._stages = [stage for stage in STAGES if stage != TOTAL and not (stage == "decode" and arrays)]
        self.sizes: dict[Size, None] = {}

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        image = next(self._images)
        start = self._clock()
        result = self._predictor(image)
        total = 1000.0 * (self._clock() - start)
        self.sizes.setdefault(result.size)
        times = result.timings
        return {**{stage: float(times[stage]) for stage in self._stages if stage in times}, TOTAL: total}


def _engine_times(predictor: Measurable, image: Image, settings: Settings) -> EngineTimes | None:
    """The engine alone, where it times itself; measured after the frames, which it must not disturb."""
    if not isinstance(predictor, _TimesItsEngine):
        return None
    return predictor.engine_times(image, repeat=settings.min_samples)


def _open_predictor(bundle: Bundle, target: str, options: RuntimeOptions) -> Measurable:
    from edgeseg.predictor import Predictor

    return Predictor(bundle.path, target, options=options, keep_image=False)


def _pictures(bundle: Bundle, images: Sequence[Image] | None) -> list[Path | NDArray[np.uint8]]:
    if images is None:
        return [bundle.file(bundle.sample)]
    if not len(images):
        raise UsageError(
            "there are no pictures to measure with; give at least one, or none at all for the bundle's own"
        )
    pictures = [image if isinstance(image, np.ndarray) else Path(image) for image in images]
    if len({isinstance(image, np.ndarray) for image in pictures}) > 1:
        raise UsageError("got picture files and arrays mixed; give only files (decoding is measured) or only arrays")
    missing = next((image for image in pictures if isinstance(image, Path) and not image.is_file()), None)
    if missing is not None:
        raise InputError(f"there is no picture at '{missing}'; give files that exist")
    return pictures


def _window(images: int) -> int:
    """Choose the frames of a warm-up window: whole rounds of the pictures where they are few.

    Medians of two windows are then of the same pictures.
    """
    return images * -(-5 // images) if images <= 50 else 50


def _identity(bundle: Bundle, target: str) -> BundleIdentity:
    manifest = bundle.manifest
    digest = sha256_of(bundle.path / MANIFEST)
    return BundleIdentity(manifest.name, manifest.network, manifest.input_size, manifest.precision_of(target), digest)


def _set_options(options: RuntimeOptions) -> dict[str, Any]:
    plain = replace(options, provider_options=dict(options.provider_options))
    return {name: value for name, value in asdict(plain).items() if value not in (None, {})}
