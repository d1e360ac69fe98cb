"""One bundle on one GPU: each check of its engine, from the first build to two sessions at once."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bench.gpu.driver import growth, in_threads
from edgeseg.bench.gpu.findings import AbsentError, Check, Outcome
from edgeseg.bench.gpu.layers import look_at_layers
from edgeseg.bundle import SAMPLE, Bundle
from edgeseg.errors import EdgesegError, UsageError
from edgeseg.images import fit_image, read_image
from edgeseg.postprocess import Region, labels_from_logits
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt import cuda, plan_cache
from edgeseg.runtimes.tensorrt.packages import rtx_module, trt_module
from edgeseg.runtimes.tensorrt.session import EngineSession
from edgeseg.specs import Size
from edgeseg.timing import ms_since

__all__ = ["BUDGETS", "Budget", "EngineCheck"]

_U8 = NDArray[np.uint8]
_LABEL_SIZE = (720, 1280)
_CYCLES = 8
_THREADS = 4
_WARM_UP = 20


@dataclass(frozen=True)
class Budget:
    """What a precision may cost.

    Attributes:
        min_agreement: Smallest share of the sample's labels that must be those of ONNX Runtime, 0..1.
        max_logit_error: Largest difference of logits from ONNX Runtime's, as a share of their range.
    """

    min_agreement: float
    max_logit_error: float


BUDGETS = {"fp32": Budget(0.999, 0.001), "fp16": Budget(0.999, 0.02), "int8": Budget(0.98, 0.1)}
"""By precision of the bundle for the target, where nothing is said."""


class EngineCheck:
    """The checks of one bundle, which share a session.

    Args:
        bundle: Exported for `target`.
        target: ``trt`` or ``trt-rtx``.
        device: The GPU.
        plans: Folder of the plans.
        repeat: Runs timed.
        budget: What the labels and logits are held to; by default that of the bundle's precision.
    """

    def __init__(
        self, bundle: Bundle, target: str, device: cuda.Device, plans: Path, *, repeat: int, budget: Budget | None
    ) -> None:
        self.bundle, self.target, self.device, self.plans, self.repeat = bundle, target, device, plans, repeat
        self.budget = budget or BUDGETS.get(bundle.manifest.precision_of(target), BUDGETS["fp32"])
        self._opened: list[EngineSession] = []
        self._build_seconds = 0.0

    def checks(self) -> list[Check]:
        """What is checked, in the order of what it tells; the first opens the session of the others."""
        return [
            ("open with no plan", 0, self._cold),
            ("labels and logits", 10, self._against_reference),
            ("labels of the kernel", 10, self._own_labels),
            ("repeatable", 10, self._repeatable),
            ("other pictures", 20, self._pictures),
            ("times", 20, self._times),
            ("open again", 30, self._warm),
            ("threads", 10, self._threads),
            ("frames under way", 10, self._under_way),
            ("two sessions at once", 30, self._two_sessions),
            ("open, run, close", 60, self._cycles),
            ("out of memory", 10, self._out_of_memory),
            ("layers", lambda: 10 + 2 * self._build_seconds, self._layers),
        ]

    def close(self) -> None:
        """Close the session; closing twice is harmless."""
        while self._opened:
            self._opened.pop().close()

    def describe(self) -> dict[str, Any]:
        """What is checked, and what ran, as plain JSON values."""
        manifest = self.bundle.manifest
        known = {"bundle": manifest.name, "target": self.target, "size": list(manifest.input_size)}
        ran = asdict(self._session.info) if self._opened else {}
        return {**known, "precision": manifest.precision_of(self.target), "session": ran, "budget": asdict(self.budget)}

    @property
    def _session(self) -> EngineSession:
        return self._opened[0]

    def _open(self) -> EngineSession:
        options = RuntimeOptions(cache_dir=str(self.plans), device=str(self.device.gpu.ordinal))
        session = open_session(self.bundle, self.target, options)
        if not isinstance(session, EngineSession):
            session.close()
            raise UsageError(f"target '{self.target}' does not run on TensorRT; use trt or trt-rtx")
        return session

    @cached_property
    def _sample(self) -> _U8:
        """The sample picture as the graph takes it: uint8 (N, H, W, C)."""
        manifest = self.bundle.manifest
        fitted, _ = fit_image(read_image(self.bundle.file(SAMPLE)), manifest.input_size, manifest.resize)
        return np.ascontiguousarray(np.repeat(fitted[None], manifest.batch, axis=0))

    def _random(self, seed: int) -> _U8:
        return np.random.default_rng(seed).integers(0, 256, self._sample.shape, np.uint8)

    def _reference(self, image: _U8) -> NDArray[np.float32]:
        with contextlib.closing(open_session(self.bundle, "ort")) as session:
            logits: NDArray[np.float32] = session.run(image)["logits"].astype(np.float32)
            return logits

    def _logits(self, image: _U8) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(image, ("logits",))["logits"].astype(np.float32)
        return logits

    def _labels(self, image: _U8, size: Size, region: Region | None = None) -> NDArray[Any]:
        return np.stack(self._session.device_labels(image, [(size, region)] * len(image)))

    def _on_host(self, logits: NDArray[np.float32], size: Size, region: Region | None = None) -> NDArray[Any]:
        spec = self.bundle.manifest.postprocess
        return np.stack([labels_from_logits(each, size, postprocess=spec, region=region) for each in logits])

    def _cold(self) -> Outcome:
        before = self.device.free_memory()
        with _builds() as built:
            started = time.perf_counter()
            self._opened.append(self._open())
            seconds = time.perf_counter() - started
        self._build_seconds = seconds if built else 0.0
        files = sorted(self.plans.glob("*.plan"))
        figures = {
            "seconds": seconds,
            "built": bool(built),
            "plan_bytes": sum(file.stat().st_size for file in files),
            "free_bytes_before": before,
            "free_bytes_after": self.device.free_memory(),
        }
        info = self._session.info
        how = "built and loaded" if built else "loaded"
        told = f"{info.engine}, {info.device}, {info.precision}: {how} in {seconds:.1f} s"
        return Outcome(True, "; ".join([told, *info.notes]), figures)

    def _warm(self) -> Outcome:
        with _builds() as built:
            started = time.perf_counter()
            second = self._open()
            seconds = time.perf_counter() - started
        second.close()
        build = max(0.0, self._build_seconds - seconds)
        told = f"{'built again' if built else 'loaded'} in {seconds:.1f} s; so the build itself took {build:.1f} s"
        return Outcome(not built, "; ".join([told, *second.info.notes]), {"seconds": seconds, "build_seconds": build})

    def _against_reference(self) -> Outcome:
        wanted, got, size = self._reference(self._sample), self._logits(self._sample), self.bundle.manifest.input_size
        error, scale = _difference(got, wanted)
        differing = int(np.count_nonzero(self._on_host(got, size) != self._on_host(wanted, size)))
        pixels = len(got) * size[0] * size[1]
        share = error / scale if scale else float(error > 0)
        good = 1 - differing / pixels >= self.budget.min_agreement and share <= self.budget.max_logit_error
        told = (
            f"{differing} of {pixels} labels are not ONNX Runtime's ({self.budget.min_agreement:.3%} must be); logits "
            f"differ by {share:.1e} of their range ({self.budget.max_logit_error:.1e} is allowed)"
        )
        figures = {"differing": differing, "pixels": pixels, "logit_error": error, "logit_range": scale}
        return Outcome(good, told, figures)

    def _own_labels(self) -> Outcome:
        """The kernel's labels, and the host's of the logits that the GPU gave, in several sizes."""
        if not self._session.labels_on_device:
            raise AbsentError("this session makes no labels on the GPU; see the notes of 'open with no plan'")
        size = self.bundle.manifest.input_size
        band = Region(size, top=size[0] / 4, left=0.0, height=size[0] / 2, width=float(size[1]))
        logits, counts = self._logits(self._sample), {}
        for name, (to, region) in {
            "input size": (size, None),
            "720x1280": (_LABEL_SIZE, None),
            "letterboxed": (_LABEL_SIZE, band),
        }.items():
            counts[name] = int(
                np.count_nonzero(self._labels(self._sample, to, region) != self._on_host(logits, to, region))
            )
        told = ", ".join(f"{count} at {name}" for name, count in counts.items())
        return Outcome(not any(counts.values()), f"labels that are not the host's of the same logits: {told}", counts)

    def _repeatable(self) -> Outcome:
        first = self._logits(self._sample)
        self._logits(self._random(1))
        again = [self._logits(self._sample) for _ in range(5)]
        different = sum(not np.array_equal(first, other) for other in again)
        return Outcome(not different, f"{different} of {len(again)} later runs gave other logits")

    def _pictures(self) -> Outcome:
        """Logits of noise and of pictures of one colour. Their labels lie at ties, so that the logits alone decide."""
        found = {}
        pictures = {"noise": self._random(2), "black": 0 * self._sample, "white": 0 * self._sample + 255}
        for name, image in pictures.items():
            error, scale = _difference(self._logits(image), self._reference(image))
            found[name] = error / scale if scale else float(error > 0)
        told = ", ".join(f"{name} {share:.1e}" for name, share in found.items())
        good = max(found.values()) <= self.budget.max_logit_error
        return Outcome(good, f"logits differ from ONNX Runtime's, as a share of their range: {told}", found)

    def _threads(self) -> Outcome:
        images = [self._random(seed) for seed in range(_THREADS)]
        wanted = [self._logits(image) for image in images]
        rounds = 5

        def work(image: _U8, logits: NDArray[np.float32]) -> int:
            return sum(not np.array_equal(self._logits(image), logits) for _ in range(rounds))

        wrong = sum(in_threads([partial(work, *each) for each in zip(images, wanted, strict=True)]))
        return Outcome(wrong == 0, f"{wrong} of {rounds * _THREADS} runs in {_THREADS} threads gave other logits")

    def _under_way(self) -> Outcome:
        """Frames that are begun before those before them are collected."""
        images = [self._random(seed) for seed in range(2)]
        wanted = [self._logits(image) for image in images]
        wrong = 0
        for _ in range(5):
            begun = [self._session.start(image, ("logits",)) for image in images]
            got = [frame.result()["logits"] for frame in begun]
            wrong += sum(not np.array_equal(*pair) for pair in zip(got, wanted, strict=True))
        return Outcome(wrong == 0, f"{wrong} of 10 frames, two at a time, gave other logits")

    def _two_sessions(self) -> Outcome:
        wanted = self._logits(self._sample)
        with contextlib.closing(self._open()) as other:
            calls: list[Callable[[], Any]] = [
                lambda: [self._logits(self._sample) for _ in range(5)],
                lambda: [other.run(self._sample, ("logits",))["logits"] for _ in range(5)],
            ]
            got = [each for one in in_threads(calls) for each in one]
        wrong = sum(not np.array_equal(each, wanted) for each in got)
        return Outcome(wrong == 0, f"{wrong} of {len(got)} runs of two sessions at once gave other logits")

    def _cycles(self) -> Outcome:
        free = []
        for _ in range(_CYCLES):
            with contextlib.closing(self._open()) as session:
                session.run(self._sample)
            free.append(self.device.free_memory())
        return growth(free, self.device.gpu)

    def _out_of_memory(self) -> Outcome:
        before = self._logits(self._sample)
        with self.device.current():
            try:
                cuda.Buffer(2 * self.device.gpu.memory).close()
            except EdgesegError as error:
                said = str(error)
            else:
                return Outcome(False, "twice the GPU's memory was given")
        same = np.array_equal(self._logits(self._sample), before)
        return Outcome(same, f"{said}; the session {'works on' if same else 'gives something else after it'}")

    def _times(self) -> Outcome:
        engine = self._session.engine_times(self._sample, self.repeat + _WARM_UP)
        size = self.bundle.manifest.input_size
        frames = {
            "labels_ms": self._wall(lambda: self._labels(self._sample, size)),
            "logits_ms": self._wall(lambda: self._logits(self._sample)),
        }
        whole = [f"{name} {np.median(ms):.3f} with copies" for name, ms in frames.items()]
        told = "; ".join([engine.line(), *whole, *self._session.info.mode, *self._session.info.notes])
        return Outcome(True, told, {"engine": asdict(engine), **frames})

    def _wall(self, call: Callable[[], object]) -> list[float]:
        times = []
        for _ in range(self.repeat + _WARM_UP):
            started = time.perf_counter()
            call()
            times.append(ms_since(started))
        return times[_WARM_UP:]

    def _layers(self) -> Outcome:
        module = rtx_module() if self.target == "trt-rtx" else trt_module()
        return look_at_layers(module, self.device, self.bundle, self._sample)


def _difference(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> tuple[float, float]:
    """Largest difference, infinity where it is no number, and the range of what is wanted."""
    error = float(np.abs(got - wanted).max())
    return error if np.isfinite(error) else float("inf"), float(wanted.max() - wanted.min())


@contextlib.contextmanager
def _builds() -> Iterator[list[str]]:
    """What the plan cache says of building in the block: empty where it built nothing."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("building an engine"):
                said.append(record.getMessage())

    logger, listener = logging.getLogger(plan_cache.__name__), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.setLevel(level)
        logger.removeHandler(listener)
