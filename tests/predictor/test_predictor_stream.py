"""Streams of a Predictor: order, failures, batches, live sources, threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import (
    InputError,
    SizeError,
    UsageError,
)
from edgeseg.predictor import Failure
from edgeseg.predictor import finish as finish_module
from edgeseg.predictor import predictor as predictor_module
from edgeseg.predictor.jobs import Job
from edgeseg.results import Result
from edgeseg.specs import ResizeRule
from tests.predictor.fakes import (
    NET,
    Fake,
    error_of,
    expected,
    no_threads,
    same,
    shows,
    wait_for,
)
from tests.runtimes.bundles import picture


def test_stream_keeps_order_and_names(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    images = [picture((50, 70), seed) for seed in range(12)]
    for index, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
    results = list(predictor.stream(tmp_path))
    assert all(same(result, expected(image)) for result, image in zip(results, images, strict=True))
    assert [result.source for result in results] == [str(tmp_path / f"{index}.png") for index in range(12)]
    assert no_threads()


def test_stream_reports_failures_in_their_place(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake(of={"batch": 4})
    items = [picture(NET), tmp_path / "gone.png", picture(NET, 1), np.zeros((2, 2, 9), np.uint8), picture(NET, 2)]
    results = list(predictor.stream(items))
    assert [type(result) for result in results] == [Result, Failure, Result, Failure, Result]
    assert [result.source for result in results] == ["0", str(tmp_path / "gone.png"), "2", "3", "4"]
    assert isinstance(error_of(results[1]), InputError)
    assert same(results[4], expected(picture(NET, 2)))


def test_a_picture_whose_labels_do_not_fit_into_memory_fails_by_itself(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, _ = fake()
    real = finish_module.finish

    def full(job: Job, *rest: object, **options: bool) -> Result:
        if job.source == "1":
            raise MemoryError
        return real(job, predictor.manifest, **options)

    monkeypatch.setattr(predictor_module, "finish", full)
    items = [picture(NET, seed) for seed in range(3)]
    results = list(predictor.stream(items))
    assert [type(result) for result in results] == [Result, Failure, Result]
    assert str(error_of(results[1])).startswith("memory ran out for the labels of '1' at ")
    with pytest.raises(InputError, match="memory ran out"):
        list(predictor.stream(items, on_error="raise"))


def test_stream_reports_sizes_that_the_graph_does_not_take(fake: Fake) -> None:
    predictor, _ = fake(of={"resize": ResizeRule("none")})
    good, bad = predictor.stream([picture(NET), picture((40, 40))])
    assert isinstance(good, Result)
    assert isinstance(error_of(bad), SizeError)


def test_stream_raises_when_asked_to(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    stream = predictor.stream([picture(NET), tmp_path / "gone.png", picture(NET)], on_error="raise")
    assert isinstance(next(stream), Result)
    with pytest.raises(InputError):
        next(stream)
    assert no_threads()


def test_stream_opens_its_source_at_once(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    with pytest.raises(InputError):
        predictor.stream(tmp_path / "gone")
    with pytest.raises(UsageError):
        predictor.stream([picture(NET)], queue=0)


def test_stream_fills_batches(fake: Fake) -> None:
    predictor, session = fake(of={"batch": 4})
    images = [picture((50, 70), seed) for seed in range(6)]
    results = list(predictor.stream(images))
    assert all(same(result, expected(image)) for result, image in zip(results, images, strict=True))
    assert len(session.calls) == 2


def test_stream_early_break_leaves_no_thread(fake: Fake) -> None:
    predictor, session = fake()
    for result in predictor.stream(picture(NET, seed % 50) for seed in itertools.count()):
        assert isinstance(result, Result)
        if len(session.calls) >= 3:
            break
    assert no_threads()


def test_stream_error_of_the_engine_surfaces(fake: Fake) -> None:
    predictor, _ = fake()
    predictor.close()
    with pytest.raises(InputError, match="closed"):
        list(predictor.stream([picture(NET)]))
    assert no_threads()


def test_stream_stop_event(fake: Fake) -> None:
    predictor, _ = fake()
    stop = threading.Event()
    seen = 0
    for _ in predictor.stream((picture(NET) for _ in itertools.count()), stop=stop):
        seen += 1
        if seen == 3:
            stop.set()
    assert seen == 3
    assert no_threads()


def test_live_stream_drops_late_pictures_for_a_slow_engine(fake: Fake) -> None:
    predictor, session = fake()
    sent = threading.Event()

    def camera() -> Iterator[NDArray[np.uint8]]:
        for seed in range(30):
            yield picture(NET, seed)
        sent.set()

    session.hold.clear()
    with predictor.stream(camera(), live=True) as stream:
        assert sent.wait(10)  # the engine stands still, the camera does not wait for it
        session.hold.set()
        sources = [result.source for result in stream]
        assert stream.dropped == 30 - len(sources)
    assert len(sources) <= 3
    assert sources[-1] == "29"
    assert same(predictor(picture(NET, 29)), expected(picture(NET, 29)))


def test_live_stream_gives_a_slow_consumer_the_newest(fake: Fake) -> None:
    predictor, session = fake()
    with predictor.stream((picture(NET, seed) for seed in range(40)), live=True) as stream:
        assert wait_for(lambda: session.calls and stream._channels[-1]._finished)
        assert next(stream).source == "39"
        assert list(stream) == []
        assert stream.dropped == 39


def test_stream_leaves_an_opened_source_to_its_owner(fake: Fake, tmp_path: Path) -> None:
    from edgeseg.sources import open_source

    predictor, _ = fake()
    cv2.imwrite(str(tmp_path / "a.png"), picture(NET))
    source = open_source(tmp_path)
    closed: list[bool] = []
    source.close = lambda: closed.append(True)  # type: ignore[method-assign]
    assert len(list(predictor.stream(source))) == 1
    assert closed == []


def test_stream_of_a_reused_buffer(fake: Fake) -> None:
    predictor, _ = fake(output="network")
    buffer = np.empty((*NET, 3), np.uint8)

    def camera() -> Iterator[NDArray[np.uint8]]:
        for seed in range(10):
            buffer[...] = picture(NET, seed)
            yield buffer

    for seed, result in enumerate(predictor.stream(camera())):
        assert same(result, expected(picture(NET, seed)))
        assert shows(result, picture(NET, seed))
