"""Check and time bundles on this machine's NVIDIA GPU: same labels as ONNX Runtime, and how fast.

    python benchmarks/gpu_check.py pidnet_s.edgeseg ffnet.edgeseg --json results/orin.json

Per bundle: the engine is loaded or built; the bundle's sample picture is run twice; the labels that end the GPU's graph
are compared with those of ONNX Runtime on the CPU through the host's exact postprocessing, and with what that
postprocessing makes of the GPU's own logits; then the engine is timed alone (events on the GPU) and from host memory to
host memory (wall clock, copies included). The JSON file is written after every bundle. Exit codes: 4 where a bundle is
outside its budget, 6 without a GPU that the target runs on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.bundle import SAMPLE, Bundle, open_bundle
from edgeseg.errors import EdgesegError, ParityError, UsageError
from edgeseg.files import write_text
from edgeseg.images import fit_image, read_image
from edgeseg.metrics import agreement
from edgeseg.postprocess import labels_from_logits
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.tensorrt.session import EngineSession
from edgeseg.specs import Size

__all__ = ["GpuCheck", "check_bundle", "main"]

_WARM_UP = 20


@dataclass(frozen=True)
class GpuCheck:
    """What one bundle did on the GPU. Times are milliseconds.

    Attributes:
        bundle: Name.
        target: ``trt`` or ``trt-rtx``.
        engine: Engine and version.
        device: The GPU.
        precision: Arithmetic of the engine.
        size: Height x width of the input.
        open_seconds: Loading or building, and preparing the engine.
        pixels: Compared.
        differing: Labels that differ between the GPU's graph and ONNX Runtime with the host's postprocessing.
        differing_from_own: Labels that differ from the host's postprocessing of the GPU's own logits.
        repeatable: Whether a second run gave the same logits and labels, bit for bit.
        max_logit_error: Largest absolute difference of logits from ONNX Runtime's.
        logit_range: Largest minus smallest logit of ONNX Runtime's, for scale.
        device_ms: p50 and p95 of the engine alone, between events on the GPU.
        labels_ms: p50 and p95 on the host's clock, picture in and labels out, copies included.
        logits_ms: The same with the logits out instead.
        repeat: Runs timed.
        notes: What the session had to say.
    """

    bundle: str
    target: str
    engine: str
    device: str
    precision: str
    size: tuple[int, int]
    open_seconds: float
    pixels: int
    differing: int
    differing_from_own: int
    repeatable: bool
    max_logit_error: float
    logit_range: float
    device_ms: tuple[float, float]
    labels_ms: tuple[float, float]
    logits_ms: tuple[float, float]
    repeat: int
    notes: tuple[str, ...]

    def faults(self, min_agreement: float, max_logit_error: float) -> list[str]:
        """What is outside of the budget, each in a few words.

        Args:
            min_agreement: Smallest share of equal labels, 0..1.
            max_logit_error: Largest difference of logits, as a share of their range.
        """
        worst = max(self.differing, self.differing_from_own)
        found = []
        if not 1 - worst / self.pixels >= min_agreement:
            found.append(f"{worst} of {self.pixels} labels differ, {min_agreement:.3%} must be equal")
        if not self.max_logit_error <= max_logit_error * self.logit_range:
            share = self.max_logit_error / self.logit_range if self.logit_range else float("inf")
            found.append(f"logits differ by {share:.1e} of their range, {max_logit_error:.1e} is allowed")
        if not self.repeatable:
            found.append("a second run gave something else")
        return found

    def __str__(self) -> str:
        share = 100.0 * self.differing / self.pixels
        return (
            f"{self.bundle} {self.size[0]}x{self.size[1]} on {self.device}, {self.engine}, {self.precision}: "
            f"{self.differing} of {self.pixels} labels differ ({share:.3f} %), {self.differing_from_own} from the "
            f"host's postprocessing of its own logits; logits by at most "
            f"{self.max_logit_error:.2e} of a range of {self.logit_range:.1f}; engine {self.device_ms[0]:.3f} ms, "
            f"with copies {self.labels_ms[0]:.3f} ms (labels) or {self.logits_ms[0]:.3f} ms (logits), "
            f"p50 of {self.repeat}"
        )


def check_bundle(bundle: Bundle, target: str, *, repeat: int = 100, cache_dir: str | None = None) -> GpuCheck:
    """Run, compare and time one bundle.

    Args:
        bundle: Exported for `target`, with labels in its graph.
        target: ``trt`` or ``trt-rtx``.
        repeat: Runs timed.
        cache_dir: Folder of the plans.

    Raises:
        TargetUnavailableError: No GPU, or no TensorRT.
        UsageError: `target` is none of a GPU's.
    """
    image = _sample(bundle)
    started = time.perf_counter()
    session = open_session(bundle, target, RuntimeOptions(cache_dir=cache_dir))
    opened = time.perf_counter() - started
    try:
        if not isinstance(session, EngineSession):
            raise UsageError(f"target '{target}' does not run on TensorRT; use trt or trt-rtx")
        return _check(bundle, session, image, opened, repeat)
    finally:
        session.close()


def _check(bundle: Bundle, session: EngineSession, image: NDArray[np.uint8], opened: float, repeat: int) -> GpuCheck:
    manifest = bundle.manifest
    size = manifest.input_size
    got, again, logits = _outputs(session, image, size), _outputs(session, image, size), _reference(bundle, image)
    wanted = labels_from_logits(logits[0], size, postprocess=manifest.postprocess)
    own = labels_from_logits(got["logits"][0], size, postprocess=manifest.postprocess)
    differing, pixels = agreement(got["labels"][0], wanted)
    return GpuCheck(
        bundle=manifest.name,
        target=session.info.target,
        engine=session.info.engine,
        device=session.info.device,
        precision=session.info.precision,
        size=manifest.input_size,
        open_seconds=opened,
        pixels=pixels,
        differing=differing,
        differing_from_own=agreement(got["labels"][0], own)[0],
        repeatable=all(np.array_equal(got[name], again[name]) for name in got),
        max_logit_error=float(np.abs(got["logits"] - logits).max()),
        logit_range=float(logits.max() - logits.min()),
        device_ms=_percentiles(session.engine_times(image, repeat + _WARM_UP).single[_WARM_UP:]),
        labels_ms=_percentiles(_wall(lambda: _labels(session, image, size), repeat)),
        logits_ms=_percentiles(_wall(lambda: session.run(image, ("logits",)), repeat)),
        repeat=repeat,
        notes=session.info.notes,
    )


def _sample(bundle: Bundle) -> NDArray[np.uint8]:
    """The bundle's sample picture as the graph takes it: uint8 (1, H, W, 3) RGB."""
    fitted, _ = fit_image(read_image(bundle.file(SAMPLE)), bundle.manifest.input_size, bundle.manifest.resize)
    return np.ascontiguousarray(np.repeat(fitted[None], bundle.manifest.batch, axis=0))


def _reference(bundle: Bundle, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = open_session(bundle, "ort")
    try:
        logits: NDArray[np.float32] = session.run(image)["logits"]
        return logits
    finally:
        session.close()


def _outputs(session: EngineSession, image: NDArray[np.uint8], size: Size) -> dict[str, NDArray[Any]]:
    return {**session.run(image), "labels": _labels(session, image, size)}


def _labels(session: EngineSession, image: NDArray[np.uint8], size: Size) -> NDArray[Any]:
    """The GPU's own labels of a batch (N, H, W)."""
    return np.stack(session.device_labels(image, [(size, None)] * len(image)))


def _wall(call: Callable[[], object], repeat: int) -> list[float]:
    times = []
    for _ in range(repeat + _WARM_UP):
        started = time.perf_counter()
        call()
        times.append(1000.0 * (time.perf_counter() - started))
    return times[_WARM_UP:]


def _percentiles(times: Sequence[float]) -> tuple[float, float]:
    median, high = np.percentile(times, (50, 95))
    return float(median), float(high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the bundles named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Check and time bundles on this machine's NVIDIA GPU.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--target", choices=("trt", "trt-rtx"), default="trt")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--repeat", type=int, default=100, help="runs timed (default 100)")
    parser.add_argument("--cache-dir", help="folder of the engines built here")
    parser.add_argument("--min-agreement", type=float, default=0.999, help="share of labels (default 0.999)")
    parser.add_argument("--max-logit-error", type=float, default=0.01, help="share of the range (default 0.01)")
    chosen = parser.parse_args(arguments)
    if chosen.repeat < 1:
        parser.error(f"--repeat is {chosen.repeat}; it must be at least 1")
    results: list[GpuCheck] = []
    faults: list[str] = []
    try:
        cuda.open_device()  # without a GPU there is nothing to read either
        for path in chosen.bundles:
            check = check_bundle(open_bundle(path), chosen.target, repeat=chosen.repeat, cache_dir=chosen.cache_dir)
            print(check, flush=True)
            results.append(check)
            faults += [f"{check.bundle}: {why}" for why in check.faults(chosen.min_agreement, chosen.max_logit_error)]
            if chosen.json is not None:
                write_text(chosen.json, json.dumps([asdict(each) for each in results], indent=2) + "\n")
    except EdgesegError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return error.exit_code
    for fault in faults:
        print(f"gpu_check: {fault}", file=sys.stderr)
    return ParityError.exit_code if faults else 0


if __name__ == "__main__":
    sys.exit(main())
