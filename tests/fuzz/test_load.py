"""Many threads, many frames, Predictors that come and go: no label lost or wrong, and no growth."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.predictor import Predictor
from edgeseg.results import Result
from tests.runtimes.bundles import make_tiny_bundle, picture

SIZES = ((32, 48), (40, 60), (100, 70))
GROWTH_MIB = 24.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    pytest.importorskip("openvino")
    return make_tiny_bundle(tmp_path_factory.mktemp("load"), targets=("ort", "openvino"))


def _resident_mib() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is measured by /proc")
    gc.collect()
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


COUNTS = [pytest.param(1_000, id="a thousand"), pytest.param(20_000, marks=pytest.mark.slow, id="twenty thousand")]


@pytest.mark.parametrize("target", ["ort", "openvino"])
@pytest.mark.parametrize("count", COUNTS)
def test_threads_get_their_own_labels(bundle: Bundle, target: str, count: int) -> None:
    frames = [picture(SIZES[index % len(SIZES)], index) for index in range(24)]
    with Predictor(bundle, target, threads=1) as predictor, ThreadPoolExecutor(8) as pool:
        wanted = [predictor(frame).labels for frame in frames]
        found = pool.map(lambda index: predictor(frames[index % 24]).labels, range(count))
        assert all(np.array_equal(labels, wanted[index % 24]) for index, labels in enumerate(found))


@pytest.mark.parametrize("target", ["ort", "openvino"])
@pytest.mark.parametrize("count", COUNTS)
def test_a_stream_loses_nothing_and_does_not_grow(bundle: Bundle, target: str, count: int) -> None:
    frames = [picture(SIZES[index % len(SIZES)], index) for index in range(24)]
    with Predictor(bundle, target, threads=1) as predictor:
        wanted = [predictor(frame).labels for frame in frames]
        done, before = 0, 0.0
        for item in predictor.stream(frames[index % 24] for index in range(count)):
            assert isinstance(item, Result)
            assert np.array_equal(item.labels, wanted[done % 24])
            done += 1
            if done == count // 2:
                before = _resident_mib()
        assert done == count
        assert _resident_mib() - before < GROWTH_MIB
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-")] == []


@pytest.mark.parametrize("times", [pytest.param(60), pytest.param(600, marks=pytest.mark.slow)])
def test_predictors_that_come_and_go_leave_nothing(bundle: Bundle, times: int) -> None:
    before = 0.0
    for index in range(times):
        with Predictor(bundle, ("ort", "openvino")[index % 2], threads=1) as predictor:
            predictor(picture())
        if index == times // 2:
            before = _resident_mib()
    assert _resident_mib() - before < GROWTH_MIB
