"""The signals that end a command: the first one decides how the command ends, whatever becomes of it on the way.

A signal becomes an exception in the main thread, so that ``with`` blocks remove what is half done. Libraries turn that
exception into others, or swallow it; therefore its number is kept here, and it is the number that gives the exit code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = [
    "INTERRUPTED",
    "TERMINATED",
    "Signals",
    "Terminated",
    "die_with",
    "ending_signals",
    "exit_code_of",
    "held",
    "settle",
    "tell_process",
    "watched",
]

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""

TERMINATED = 143
"""Exit code of a command that SIGTERM or SIGHUP (its terminal went away) ended."""


_AGAIN_S = 0.02
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; unwinds as Ctrl-C does."""


class Signals:
    """What has arrived so far.

    Attributes:
        number: First signal that counted, None where none did.
        settled: Whether signals no longer count.
        on_settle: Called when that is said.
        on_process: Called with ``"+"`` or ``"-"`` and the number of a process that was started or has ended.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.settled = False
        self.on_settle: Callable[[], None] | None = None
        self.on_process: Callable[[str, int], None] | None = None
        self._holds = 0
        self._raised = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: raise on the first one, or keep it until `held` ends; later ones change nothing."""
        if self.settled:
            return
        self.number = number if self.number is None else self.number
        if not self._holds and not self._raised:
            self._raise()

    def _raise(self) -> None:
        self._raised = True
        raise KeyboardInterrupt if self.number == signal.SIGINT else Terminated

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep signals back until the block ends."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self.number is not None and not (self._holds or self._raised or self.settled):
            self._raise()

    def settle(self) -> None:
        """Say that what was asked for is done: signals that came while held, or that come now, change nothing."""
        if not self._raised:
            self.number, self.settled = None, True
            if self.on_settle is not None:
                self.on_settle()

    def raise_again(self) -> None:
        """Have the signal raised once more in a moment: the first time it ended in a place that lets nothing out."""
        self._raised = False
        number = self.number or signal.SIGTERM
        again = threading.Timer(_AGAIN_S, lambda: os.kill(os.getpid(), number))
        again.daemon = True
        again.start()


_current: Signals | None = None


def exit_code_of(number: int) -> int:
    """Exit code for a signal."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


@contextlib.contextmanager
def watched() -> Iterator[Signals]:
    """Take `ending_signals` in this block; the handlers from before come back. Outside the main thread take nothing."""
    global _current
    found = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.getsignal(number) for number in ending_signals()}
    outer, hook = _current, sys.unraisablehook

    def unraisable(lost: Any) -> None:
        if issubclass(lost.exc_type, (KeyboardInterrupt, Terminated)) and found.number is not None:
            found.raise_again()  # a destructor or a callback swallowed it
        else:
            hook(lost)

    try:
        _current, sys.unraisablehook = found, unraisable
        for number in before:
            signal.signal(number, found.handle)
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _current, sys.unraisablehook = outer, hook


def ending_signals() -> list[int]:
    """INT, TERM and HUP, as far as the system has them and they are not ignored, as nohup and shells' ``&`` do."""
    numbers = [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Keep signals back while files change places; without `watched`, or in another thread, do nothing."""
    if _current is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _current.hold():
        yield


def settle() -> None:
    """Say that the command's work is in place, so that a signal no longer changes how it ends."""
    if _current is not None:
        _current.settle()


def tell_process(sign: str, number: int) -> None:
    """Say that a process of the command's own was started (``+``) or has ended (``-``)."""
    if _current is not None and _current.on_process is not None:
        _current.on_process(sign, number)


def die_with(parent: int) -> None:
    """Have this process killed when `parent`, which started it, is (Linux): nothing works on for nobody."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
