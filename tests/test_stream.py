"""Channels and streams: order, bounds, errors and an end that leaves no thread."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edgeseg._signals import Terminated
from edgeseg.stream import Channel, Stream


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-")}


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    gc.collect()
    assert names() == set()


def plus_one(items: Iterator[int]) -> Iterator[int]:
    return (item + 1 for item in items)


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())


def test_stages_run_in_order_and_end() -> None:
    assert list(Stream(range(50), [plus_one, plus_one, plus_one])) == list(range(3, 53))


def test_empty_source_gives_nothing() -> None:
    assert list(Stream([], [plus_one])) == []


def test_stages_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=5)

    def meet(items: Iterator[int]) -> Iterator[int]:
        for index, item in enumerate(items):
            yield item
            if index == 0:
                meeting.wait()  # passes only when all three stages are inside at once

    assert list(Stream(range(4), [meet, meet, meet])) == [0, 1, 2, 3]


def test_source_is_held_back_by_full_channels() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    with Stream[int](source(), [plus_one, plus_one], capacity=2) as stream:
        assert next(stream) == 2
        assert wait_for(lambda: len(taken) >= 7)
        time.sleep(0.05)
        assert len(taken) == 7  # one given, two waiting and one in hand at each of the two stages


def test_break_ends_an_endless_source() -> None:
    for item in Stream[int](itertools.count(), [plus_one, plus_one]):
        if item == 10:
            break
    assert names() == set()


def test_an_error_in_the_consumer_ends_the_threads() -> None:
    def consume() -> None:
        for _ in Stream[int](itertools.count(), [plus_one]):
            raise ValueError("consumer")

    with pytest.raises(ValueError, match="consumer"):
        consume()


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_error_in_any_stage_surfaces_after_the_items_before_it(broken: int) -> None:
    def breaks(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            if item == 5:
                raise RuntimeError(f"stage {broken}")
            yield item

    def same(items: Iterator[int]) -> Iterator[int]:
        return items

    stages = [same, same, same]
    stages[broken] = breaks
    stream = Stream[int](itertools.count(), stages)
    assert list(itertools.islice(stream, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match=f"stage {broken}"):
        next(stream)
    assert list(stream) == []


def test_an_error_in_the_source_surfaces() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("cable")

    stream = Stream[int](source(), [plus_one])
    assert next(stream) == 2
    with pytest.raises(OSError, match="cable"):
        next(stream)


def test_stop_ends_a_waiting_consumer() -> None:
    stop, release = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 1
        release.wait(5)

    stream = Stream[int](source(), [plus_one], stop=stop, patience=0.1)
    assert next(stream) == 2
    threading.Timer(0.05, stop.set).start()
    assert list(stream) == []
    release.set()
    assert wait_for(lambda: names() == set())


def test_latest_gives_the_newest_and_counts_the_rest() -> None:
    go_on, sent = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        go_on.wait(5)
        yield from range(1, 100)
        sent.set()

    def same(items: Iterator[int]) -> Iterator[int]:
        return items

    with Stream[int](source(), [same, same], latest=True) as stream:
        assert next(stream) == 0
        go_on.set()
        assert sent.wait(5)  # nothing held the source back
        assert wait_for(lambda: stream.dropped == 98)
        assert list(stream) == [99]


def test_a_source_of_iterators_is_closed_in_its_thread() -> None:
    ended = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            ended.set()

    with Stream[int](source(), [plus_one]) as stream:
        next(stream)
    gc.collect()
    assert ended.wait(5)


def test_keyboard_interrupt_in_the_consumer_ends_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream[int](itertools.count(), [plus_one])

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(stream._channels[-1], "get", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert names() == set()


def test_channel_refuses_after_closing() -> None:
    channel = Channel[int](2)
    assert channel.put(1)
    channel.close()
    channel.close()
    assert not channel.put(2)
    assert channel.get() is None


def test_channel_closing_wakes_a_waiting_sender() -> None:
    channel = Channel[int](1)
    channel.put(1)
    given: list[bool] = []
    sender = threading.Thread(target=lambda: given.append(channel.put(2)))
    sender.start()
    channel.close()
    sender.join(5)
    assert given == [False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_a_signal_does_not_wait_for_a_source_that_blocks(error: type[BaseException]) -> None:
    """What was recorded so far must be finished in the second that a signal leaves."""
    free = threading.Event()

    def blocked() -> Iterator[int]:
        yield 1
        free.wait(20.0)

    def interrupted() -> None:
        with Stream[int](blocked(), [lambda items: items], patience=12.0) as stream:
            assert next(stream) == 1
            raise error

    start = time.monotonic()
    with pytest.raises(error):
        interrupted()
    assert time.monotonic() - start < 2.0
    free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("edgeseg-"):
            thread.join(5.0)
