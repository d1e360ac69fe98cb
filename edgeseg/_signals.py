"""The signals that end a command. The first one decides how the command ends.

A signal becomes an exception in the main thread, so that ``with`` blocks remove what is half done. Libraries turn that
exception into others, or swallow it. Therefore the signal's number is kept here, and the number gives the exit code.
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
    "report_process",
    "settle",
    "signal_name",
    "signals_deferred",
    "watch_signals",
]

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""

TERMINATED = 143
"""Exit code of a command that SIGTERM, or SIGHUP (its terminal was closed), ended."""

_AGAIN_S = 0.02
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; it unwinds the stack as Ctrl-C does."""


class Signals:
    """The signals that have arrived.

    Attributes:
        number: First signal that counted, None where none did.
        settled: Whether signals no longer count.
        on_settle: Called when they stop counting.
        on_process: Called with ``"+"`` or ``"-"`` and the number of a process that was started or has ended.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.settled = False
        self.on_settle: Callable[[], None] | None = None
        self.on_process: Callable[[str, int], None] | None = None
        self._deferrals = 0
        self._raised = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal. The first one raises, at once or when `defer` ends; later ones change nothing."""
        if self.settled:
            return
        self.number = number if self.number is None else self.number
        if not self._deferrals and not self._raised:
            self._raise()

    def _raise(self) -> None:
        self._raised = True
        raise KeyboardInterrupt if self.number == signal.SIGINT else Terminated

    @contextlib.contextmanager
    def defer(self) -> Iterator[None]:
        """Let no signal raise before the block ends."""
        self._deferrals += 1
        try:
            yield
        finally:
            self._deferrals -= 1
        if self.number is not None and not (self._deferrals or self._raised or self.settled):
            self._raise()

    def settle(self) -> None:
        """Let signals no longer count, deferred ones included: what was asked for is done."""
        if not self._raised:
            self.number, self.settled = None, True
            if self.on_settle is not None:
                self.on_settle()

    def raise_again(self) -> None:
        """Raise the signal once more in a moment, because the first exception was swallowed."""
        self._raised = False
        number = self.number or signal.SIGTERM
        again = threading.Timer(_AGAIN_S, lambda: os.kill(os.getpid(), number))
        again.daemon = True
        again.start()


_current: Signals | None = None


def exit_code_of(number: int) -> int:
    """Give the exit code of a command that a signal ended.

    Example:
        >>> exit_code_of(signal.SIGINT)
        130
    """
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


def signal_name(number: int) -> str:
    """Name a signal, such as ``SIGKILL``.

    Example:
        >>> signal_name(9)
        'SIGKILL'
    """
    return signal.Signals(number).name if number in {int(known) for known in signal.Signals} else f"signal {number}"


@contextlib.contextmanager
def watch_signals() -> Iterator[Signals]:
    """Handle `ending_signals` in this block, and restore the handlers after it; outside the main thread do nothing."""
    global _current
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in ending_signals()}
    outer, hook = _current, sys.unraisablehook

    def unraisable(swallowed: Any) -> None:
        if issubclass(swallowed.exc_type, (KeyboardInterrupt, Terminated)) and signals.number is not None:
            signals.raise_again()  # a destructor or a callback swallowed it
        elif signals.number is None:  # after a signal, objects that were half made say so as they go
            hook(swallowed)

    try:
        _current, sys.unraisablehook = signals, unraisable
        for number in before:
            signal.signal(number, signals.handle)
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _current, sys.unraisablehook = outer, hook


def ending_signals() -> list[int]:
    """List INT, TERM and HUP, without those that the system lacks or that are ignored (``nohup``, a shell's ``&``)."""
    numbers = [int(getattr(signal, name)) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Let no signal raise while files change places; without `watch_signals`, or in another thread, do nothing."""
    if _current is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _current.defer():
        yield


def settle() -> None:
    """Report that the command's work is in place, so that a signal no longer changes how it ends."""
    if _current is not None:
        _current.settle()


def report_process(sign: str, number: int) -> None:
    """Report that this command started a process (``+``) or that one has ended (``-``)."""
    if _current is not None and _current.on_process is not None:
        _current.on_process(sign, number)


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent dies (Linux), so that it does not work on for nobody."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
