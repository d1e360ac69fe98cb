"""Say what an export is doing, and keep the time each step took.

`recorded` surrounds an export; `step` surrounds each piece of its work, however deep it lies:

>>> words = []
>>> with recorded(words.append) as seconds:
...     with step("rewriting"):
...         pass
>>> words, list(seconds)
(['rewriting'], ['rewriting'])
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

__all__ = ["Progress", "recorded", "step"]

Progress = Callable[[str], None]
"""Called with a few words before each step."""

_Record = tuple["Progress | None", dict[str, float]]
_current: ContextVar[_Record | None] = ContextVar("edgeseg_export_steps", default=None)


@contextlib.contextmanager
def recorded(progress: Progress | None = None) -> Iterator[dict[str, float]]:
    """Record the steps of the work inside; yields their seconds by name, which fill up as the work goes on."""
    seconds: dict[str, float] = {}
    token = _current.set((progress, seconds))
    try:
        yield seconds
    finally:
        _current.reset(token)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Name the work inside; a step that comes again adds to its time. Outside `recorded` it does nothing."""
    record = _current.get()
    if record is None:
        yield
        return
    progress, seconds = record
    if progress is not None:
        progress(what)
    started = time.perf_counter()
    yield
    seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - started
