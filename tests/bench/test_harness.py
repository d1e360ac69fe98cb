"""The harness on predictors and clocks that only pretend: counts, windows, stages. No timing is asserted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.bench import benchmark, run_benchmark
from edgeseg.bench.harness import Image, collect, measure, warm_up
from edgeseg.bench.report import BenchmarkReport, Settings
from edgeseg.bundle import SAMPLE, Bundle, write_manifest
from edgeseg.errors import BundleError, InputError, UnknownNameError, UsageError
from edgeseg.results import Result
from edgeseg.runtimes._base import RuntimeOptions
from tests.bench.samples import INFO, FakeClock, FakePredictor, bare_bundle

QUICK = Settings(min_samples=7, max_samples=9, seconds=0.0)


def totals(*values: float) -> Iterator[dict[str, float]]:
    return ({"total": value} for value in itertools.chain(values, itertools.repeat(values[-1])))


def measured(bundle: Bundle, images: list[Image], predictor: FakePredictor) -> BenchmarkReport:
    options = RuntimeOptions(threads=2)
    return measure(bundle, "ort", images, options=options, settings=QUICK, opener=lambda *_: predictor)


def test_warm_up_ends_once_two_windows_agree() -> None:
    found = warm_up(totals(*[9.0] * 3, *[5.0] * 3, *[5.05] * 3), Settings(), window=3, clock=FakeClock(0.0))
    assert (found.frames, found.window, found.stable) == (9, 3, True)
    assert found.change == pytest.approx(0.01)


def test_warm_up_gives_up_after_its_frames_or_its_time() -> None:
    shaky = Settings(warmup_frames=20)
    found = warm_up(totals(*range(1, 200)), shaky, window=3, clock=FakeClock(0.0))
    assert (found.frames, found.stable) == (18, False)
    slow = warm_up(totals(*range(1, 200)), Settings(warmup_seconds=1.0), window=3, clock=FakeClock(0.4))
    assert (slow.frames, slow.stable) == (6, False)
    none = warm_up(totals(1.0), Settings(warmup_frames=0), window=3)
    assert (none.frames, none.change, none.stable) == (0, None, False)


def test_collect_stops_between_its_bounds() -> None:
    few = collect(totals(1.0), Settings(min_samples=5, seconds=0.0), clock=FakeClock())[0]
    assert len(few["total"]) == 5
    timed = collect(totals(1.0), Settings(min_samples=5, seconds=2.0), clock=FakeClock(0.1))
    assert len(timed[0]["total"]) == 20
    assert timed[1] == pytest.approx(2.0)
    most = collect(totals(1.0), Settings(min_samples=5, max_samples=8, seconds=1e9), clock=FakeClock())[0]
    assert len(most["total"]) == 8


def test_a_report_holds_every_stage_and_the_total(tmp_path: Path) -> None:
    bundle, predictor = bare_bundle(tmp_path), FakePredictor()
    report = measured(bundle, [bundle.file(SAMPLE)], predictor)
    assert list(report.stages) == ["decode", "pre", "infer", "postprocess", "total"]
    assert {len(values) for values in report.samples.values()} == {7}
    assert report.samples["infer"] == [5.0] * 7
    assert min(report.samples["total"]) >= 0.0
    assert (report.session, report.first_infer_ms, report.source_sizes) == (INFO, 5.0, ((48, 96),))
    assert (report.bundle.name, report.bundle.input_size, len(report.bundle.manifest_sha256)) == ("bare", (32, 64), 64)
    assert (report.options, report.own_process) == ({"threads": 2}, False)
    assert len(predictor.seen) == 1 + report.warmup.frames + 7
    assert predictor.closed


def test_a_report_names_the_precision_that_its_target_has(tmp_path: Path) -> None:
    bundle = bare_bundle(tmp_path)
    manifest = replace(bundle.manifest, precision="int8", precisions={INFO.target: "fp32"})
    report = measured(Bundle(bundle.path, manifest), [bundle.file(SAMPLE)], FakePredictor())
    assert report.bundle.precision == "fp32"


def test_arrays_have_no_decoding_and_pictures_are_taken_in_turn(tmp_path: Path) -> None:
    predictor = FakePredictor()
    images: list[Image] = [np.zeros((10, 20, 3), np.uint8), np.zeros((30, 40, 3), np.uint8)]
    report = measured(bare_bundle(tmp_path), images, predictor)
    assert list(report.stages) == ["pre", "infer", "postprocess", "total"]
    assert report.source_sizes == ((10, 20), (30, 40))
    assert [id(image) for image in predictor.seen[:4]] == [id(image) for image in images * 2]
    assert report.warmup.window == 6  # whole rounds of two pictures


def test_the_engine_is_freed_when_a_frame_fails(tmp_path: Path) -> None:
    class Failing(FakePredictor):
        def __call__(self, source: object, /) -> Result:
            raise InputError("no picture")

    predictor = Failing()
    with pytest.raises(InputError, match="no picture"):
        measured(bare_bundle(tmp_path), [tmp_path], predictor)
    assert predictor.closed


@pytest.mark.parametrize(
    "options",
    [{"min_samples": 0}, {"min_samples": 9, "max_samples": 8}, {"seconds": -1.0}, {"tolerance": float("nan")}],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected|must be"):
        benchmark(bare_bundle(tmp_path), in_process=True, **options)


def test_pictures_that_cannot_be_are_refused(tmp_path: Path) -> None:
    bundle = bare_bundle(tmp_path)
    with pytest.raises(UsageError, match="no pictures"):
        run_benchmark(bundle, images=[], in_process=True)
    with pytest.raises(UsageError, match="mixed"):
        run_benchmark(bundle, images=[bundle.file(SAMPLE), np.zeros((4, 4, 3), np.uint8)], in_process=True)
    with pytest.raises(InputError, match=r"gone\.png"):
        run_benchmark(bundle, images=[tmp_path / "gone.png"], in_process=True)


def test_a_bundle_without_a_sample_says_so(tmp_path: Path) -> None:
    bundle = bare_bundle(tmp_path)
    bundle.manifest.files.clear()
    write_manifest(bundle.path, bundle.manifest)
    with pytest.raises(BundleError, match=r"sample\.png"):
        run_benchmark(bundle.path, in_process=True)


def test_unknown_names_get_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'threads'"):
        benchmark(tmp_path, thread=1)
    with pytest.raises(UnknownNameError, match="did you mean 'openvino'"):
        benchmark(bare_bundle(tmp_path), "openvine")
    with pytest.raises(BundleError, match="no bundle"):
        benchmark(tmp_path / "missing")
