"""Frames, calls and streams of one session in any order and from several threads: each gets what is its own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseg import Predictor
from edgeseg.bundle import Bundle
from edgeseg.predictor import Failure
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt.session import EngineSession
from tests.runtimes.bundles import make_tiny_bundle, picture

pytestmark = pytest.mark.usefixtures("tensorrt")

SIZES = ((32, 48), (9, 7), (50, 70))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path, targets=("ort", "trt"))


@pytest.fixture
def options(tmp_path: Path) -> RuntimeOptions:
    return RuntimeOptions(cache_dir=str(tmp_path / "plans"))


class Wanted:
    """What ONNX Runtime and the host's postprocessing give for a picture."""

    def __init__(self, bundle: Bundle) -> None:
        self.session = open_session(bundle, "ort")
        self.postprocess = bundle.manifest.postprocess
        self._known: dict[int, Any] = {}

    def logits(self, seed: int) -> Any:
        if seed not in self._known:
            self._known[seed] = self.session.run(picture(seed=seed)[None])["logits"]
        return self._known[seed]

    def labels(self, seed: int, size: tuple[int, int]) -> Any:
        from edgeseg.postprocess import labels_from_logits

        return labels_from_logits(self.logits(seed)[0], size, postprocess=self.postprocess)


@pytest.fixture
def wanted(bundle: Bundle) -> Iterator[Wanted]:
    made = Wanted(bundle)
    yield made
    made.session.close()


SEED, SIZE = st.integers(0, 3), st.sampled_from(SIZES)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), SEED),
        st.tuples(st.just("label"), SEED, SIZE),
        st.tuples(st.just("take"), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.integers(0, 3)),
        st.tuples(st.just("run"), SEED),
        st.tuples(st.just("run labels"), SEED, SIZE),
        st.tuples(st.just("time"), SEED),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, integrated=st.booleans())
def test_frames_in_any_order_get_what_is_theirs(
    bundle: Bundle,
    options: RuntimeOptions,
    wanted: Wanted,
    fake_gpu: ctypes.CDLL,
    steps: list[tuple[Any, ...]],
    integrated: bool,
) -> None:
    fake_gpu.fake_integrated(int(integrated), 1)
    session = open_session(bundle, "trt", options)
    assert isinstance(session, EngineSession)
    under_way: list[tuple[Any, Any]] = []
    for what, *given_ in steps:
        if what == "start":
            under_way.append((session.start(picture(seed=given_[0])[None]), wanted.logits(given_[0])))
        elif what == "label":
            frame = session.start_labels(picture(seed=given_[0])[None], [(given_[1], None)])
            under_way.append((frame, wanted.labels(*given_)))
        elif what in ("take", "drop") and len(under_way) > given_[0]:
            pending, expected = under_way.pop(given_[0])
            if what == "take":
                check(pending.result(), expected)
        elif what == "run":
            check(session.run(picture(seed=given_[0])[None]), wanted.logits(given_[0]))
        elif what == "run labels":
            check(session.device_labels(picture(seed=given_[0])[None], [(given_[1], None)]), wanted.labels(*given_))
        elif what == "time":
            assert session.engine_times(picture(seed=given_[0])[None], 2).queued > 0
    session.close()
    for pending, expected in under_way:
        check(pending.result(), expected)
    assert session.info.notes == ()
    assert (fake_gpu.fake_live(), fake_gpu.fake_current()) == (0, 0)


def check(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found["logits"] if isinstance(found, dict) else found[0], expected)


@pytest.mark.parametrize("integrated", [True, False])
def test_threads_and_a_stream_share_a_session(
    bundle: Bundle, options: RuntimeOptions, wanted: Wanted, fake_gpu: ctypes.CDLL, integrated: bool
) -> None:
    fake_gpu.fake_integrated(int(integrated), 1)
    seeds = [seed % 4 for seed in range(24)]
    with Predictor(bundle, "trt", options=options) as device, ThreadPoolExecutor(4) as pool:

        def call(seed: int) -> tuple[int, Any]:
            return seed, device(picture(seed=seed), output=SIZES[seed % 3]).labels

        calls = [pool.submit(call, seed) for seed in seeds]
        with device.stream([picture(seed=seed) for seed in seeds]) as stream:
            for seed, result in zip(seeds, stream, strict=True):
                assert not isinstance(result, Failure)
                np.testing.assert_array_equal(result.labels, wanted.labels(seed, (32, 48)))
        for future in calls:
            seed, labels = future.result()
            np.testing.assert_array_equal(labels, wanted.labels(seed, SIZES[seed % 3]))
        assert device.info.notes == ()
