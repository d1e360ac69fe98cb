"""Stages that run at the same time: one thread each, with bounded channels between them. The end leaves no thread.

`Stream` knows nothing about networks. It pulls items through functions from iterator to iterator. The Predictor gives
it three (prepare, infer, finish), so that decoding, the engine and the postprocessing are busy at once. Order is kept.
An exception of a stage is raised at the consumer, after the items before it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Channel", "Stage", "Stream"]

T = TypeVar("T")

Stage = Callable[[Iterator[Any]], Iterator[Any]]
"""Turns an iterator of items into an iterator of results; it runs in a thread of its own."""

_POLL_S = 0.1
_HURRY_S = 0.3  # a command has little more than a second to end after a signal


class Channel(Generic[T]):
    """A bounded queue between two threads that can be finished by its sender, or closed from either side.

    Args:
        capacity: Items it takes.
        latest: A full channel drops its oldest item; otherwise the sender waits.
    """

    def __init__(self, capacity: int, *, latest: bool = False) -> None:
        self.dropped = 0
        self._capacity, self._latest = capacity, latest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Add an item, waiting for room where none may be dropped; False when the receiver has closed the channel."""
        with self._changed:
            while len(self._items) >= self._capacity and not self._closed:
                if self._latest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def get(self, stop: threading.Event | None = None) -> T | None:
        """Wait for the next item; None after the last one, or when `stop` is set.

        Raises:
            BaseException: The error that `finish` was given.
        """
        with self._changed:
            while not (self._items or self._finished or self._closed or (stop is not None and stop.is_set())):
                self._changed.wait(_POLL_S)  # a wait that ends lets Ctrl-C through on every system
            if self._closed or (stop is not None and stop.is_set()):
                return None
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            if self._error is not None:
                raise self._error
            return None

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def finish(self, error: BaseException | None = None) -> None:
        """Mark the end: no item follows. `error` is raised at the receiver after the last item."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Drop the items that wait and wake both sides. Closing twice is harmless."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


class Stream(Generic[T]):
    """Results of `stages` over `source`, as they come. Break, `close`, an error or Ctrl-C ends all threads.

    Args:
        source: Iterated in the first stage's thread.
        stages: Run at once, each in its own thread, on the results of the one before.
        capacity: Items each channel takes.
        latest: Channels drop their oldest item instead of slowing the source, so the newest result always comes next.
        stop: When set, the stream ends before the next item.
        patience: Seconds `close` waits for the threads; a source that blocks longer ends with its own next item.

    Example:
        >>> def double(items):
        ...     return (2 * item for item in items)
        >>> list(Stream([1, 2, 3], [double, double]))
        [4, 8, 12]
    """

    def __init__(
        self,
        source: Iterable[Any],
        stages: Sequence[Stage],
        *,
        capacity: int = 2,
        latest: bool = False,
        stop: threading.Event | None = None,
        patience: float = 2.0,
    ) -> None:
        channels: list[Channel[Any]] = [Channel(1 if latest else capacity, latest=latest) for _ in stages]
        inputs: list[Iterable[Any]] = [source, *channels[:-1]]
        threads = [
            threading.Thread(target=_run, args=job, name=f"edgeseg-{index}", daemon=True)
            for index, job in enumerate(zip(stages, inputs, channels, strict=True))
        ]
        self._channels, self._stop = channels, stop
        self._end = weakref.finalize(self, _shut_down, channels, threads, patience)
        for thread in threads:
            thread.start()

    @property
    def dropped(self) -> int:
        """Items dropped so far because a newer one came; 0 unless the source is live."""
        return sum(channel.dropped for channel in self._channels)

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        try:
            item: T | None = self._channels[-1].get(self._stop)
        except BaseException as error:
            self._close(type(error))
            raise
        if item is None:
            self.close()
            raise StopIteration
        return item

    def close(self) -> None:
        """End the threads. Closing twice is harmless."""
        self._end()

    def _close(self, kind: type[BaseException] | None) -> None:
        """Close. After a signal do not wait for a source that blocks, because a recording must still be finished."""
        if kind is None or issubclass(kind, Exception):
            self.close()
        elif (pending := self._end.detach()) is not None:
            channels, threads, patience = pending[2]
            _shut_down(channels, threads, min(patience, _HURRY_S))

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(kind)


def _run(stage: Stage, source: Iterable[Any], target: Channel[Any]) -> None:
    """Pull `source` through `stage` into `target` in a thread. When `target` is closed, close `source` too."""
    try:
        for item in stage(iter(source)):
            if not target.put(item):
                break
    except BaseException as error:  # raised again where the results are taken
        target.finish(error)
    else:
        target.finish()
    finally:
        if isinstance(source, Channel):
            source.close()


def _shut_down(channels: list[Channel[Any]], threads: list[threading.Thread], patience: float) -> None:
    for channel in channels:
        channel.close()
    deadline = time.monotonic() + patience
    for thread in threads:
        if thread is not threading.current_thread() and thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
