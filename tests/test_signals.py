"""Signals as one exception, and what is quiet after it."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edgeseg._signals import Terminated, watch_signals


def test_after_a_signal_objects_that_were_half_made_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    swallowed: Any = SimpleNamespace(exc_type=AttributeError)
    with watch_signals():
        sys.unraisablehook(swallowed)
        assert seen == [swallowed]
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        sys.unraisablehook(swallowed)
    assert seen == [swallowed]
