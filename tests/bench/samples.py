"""Reports made of invented figures, and a predictor that only pretends to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import bundle as bundles
from edgeseg.bench.machine import DeviceState, Machine, describe_machine
from edgeseg.bench.memory import MemoryUse
from edgeseg.bench.report import BenchmarkReport, BundleIdentity, Settings, Warmup
from edgeseg.files import sha256_of
from edgeseg.results import Result
from edgeseg.runtimes._base import SessionInfo
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule

INFO = SessionInfo("ort", "fake 1.0", "CPUExecutionProvider", "fp32", 2)


def latencies(median: float, *, n: int = 60, seed: int = 0, spread: float = 0.02) -> list[float]:
    """`n` invented latencies around `median` milliseconds."""
    random = np.random.default_rng(seed)
    return [float(x) for x in median * np.exp(spread * random.standard_normal(n))]


def a_machine(**changes: Any) -> Machine:
    """This machine, with fields changed."""
    return replace(describe_machine(), **changes)


def a_report(
    samples: Mapping[str, Sequence[float]] | None = None,
    *,
    name: str = "tiny",
    target: str = "ort",
    machine: Machine | None = None,
    **changes: Any,
) -> BenchmarkReport:
    """A report of invented figures, with fields changed."""
    report = BenchmarkReport(
        bundle=BundleIdentity(name, "espnet", (32, 64), "fp32", "0" * 64),
        target=target,
        session=INFO,
        settings=Settings(),
        images=1,
        source_sizes=((48, 96),),
        load_ms=120.0,
        first_ms=9.0,
        first_infer_ms=5.0,
        warmup=Warmup(10, 0.1, 5, 0.01, stable=True),
        samples=samples
        or {"decode": latencies(1.0), "infer": latencies(8.0, seed=1), "total": latencies(10.0, seed=2)},
        elapsed_s=0.6,
        memory=MemoryUse(50.0, 90.0, 110.0),
        machine=machine or a_machine(),
        before=DeviceState(0.1, 2600.0, None),
        after=DeviceState(0.2, 2500.0, 51.5),
        created="2030-01-02T03:04:05+00:00",
        edgeseg="0.1.0",
        options={"threads": 2},
    )
    return replace(report, **changes)


def bare_bundle(folder: Path, name: str = "bare") -> bundles.Bundle:
    """A bundle with a sample picture and no graph, for predictors that only pretend."""
    path = folder / f"{name}{bundles.SUFFIX}"
    path.mkdir(parents=True)
    cv2.imwrite(str(path / bundles.SAMPLE), np.full((48, 96, 3), 90, np.uint8))
    manifest = bundles.Manifest(
        name=name,
        network="espnet",
        num_classes=2,
        labels=("a", "b"),
        palette=((0, 0, 0), (255, 0, 0)),
        input_size=(32, 64),
        logit_size=(4, 8),
        divisor=8,
        input=InputSpec(),
        resize=ResizeRule(),
        postprocess=PostprocessSpec(),
        targets=("ort",),
        files={bundles.SAMPLE: sha256_of(path / bundles.SAMPLE)},
    )
    bundles.write_manifest(path, manifest)
    return bundles.open_bundle(path)


class FakePredictor:
    """Answers every picture with empty labels and invented timings."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.closed = False
        self.info = INFO

    def __call__(self, source: Path | NDArray[np.uint8], /) -> Result:
        self.seen.append(source)
        size = source.shape[:2] if isinstance(source, np.ndarray) else (48, 96)
        timings = {"decode": 1.0, "pre": 0.5, "infer": 5.0, "postprocess": 0.25}
        return Result(np.zeros(size, np.uint8), ("a", "b"), ((0, 0, 0), (255, 0, 0)), timings=timings)

    def close(self) -> None:
        self.closed = True


class FakeClock:
    """A clock that moves `step` seconds each time it is read."""

    def __init__(self, step: float = 0.001) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now
