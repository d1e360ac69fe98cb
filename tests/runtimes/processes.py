"""Several processes that want the same thing of a cache at the same moment."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path


def works_in(use: Callable[[Callable[[], None]], object], marks: Path, processes: int = 2) -> int:
    """Run ``use(work)`` in forked processes at once; in how many of them `work` was called. It takes a moment."""
    marks.mkdir()

    def work() -> None:
        (marks / str(os.getpid())).touch()
        time.sleep(0.3)

    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=use, args=(work,)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    return len(list(marks.iterdir()))
