"""Timing work on the GPU between events."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from edgeseg.runtimes.tensorrt import cuda
from edgeseg.runtimes.times import EngineTimes
from edgeseg.timing import ms_since

__all__ = ["measure"]


def measure(enqueue: Callable[[], object], stream: cuda.Stream, repeat: int) -> EngineTimes:
    """Time what a call puts into a stream of the current context, after one run that is not counted.

    Args:
        enqueue: Starts one run.
        stream: Where.
        repeat: How many runs of each kind.
    """
    with ExitStack() as opened:
        before = opened.enter_context(closing(cuda.Event()))
        after = opened.enter_context(closing(cuda.Event()))
        enqueue()
        stream.wait()
        single, host = [], []
        for _ in range(repeat):
            before.record(stream)
            start = time.perf_counter()
            enqueue()
            host.append(ms_since(start))
            after.record(stream)
            single.append(after.milliseconds_since(before))
        before.record(stream)
        for _ in range(repeat):
            enqueue()
        after.record(stream)
        return EngineTimes(tuple(single), after.milliseconds_since(before) / repeat, tuple(host))
