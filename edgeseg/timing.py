"""Elapsed time in milliseconds."""

from __future__ import annotations

import time

__all__ = ["ms_since"]


def ms_since(start: float) -> float:
    """Compute the milliseconds since `start`, a value of `time.perf_counter`."""
    return (time.perf_counter() - start) * 1000.0
