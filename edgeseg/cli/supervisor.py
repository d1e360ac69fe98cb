"""A command runs in a child process, so that a signal ends it whatever native code is doing.

An engine, a converter or a decoder may run native code for very long (a graph with a loop never returns), and no Python
handler runs meanwhile. The parent passes a signal on, gives the child a moment to unwind, then kills it, removes what
it had not finished and ends with the signal's code. A child that crashes ends in a sentence the same way.

The parent forks before anything heavy is imported: it has no thread, no lock and little memory.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from edgeseg._signals import die_with, ending_signals, exit_code_of, signal_name

__all__ = ["STOPPED", "Reporter", "supervise"]

GRACE_S = 1.4
"""Seconds a command has to unwind after a signal."""

STOPPED = {130: "stopped; nothing half-written was left", 143: "terminated; nothing half-written was left"}
"""What is said for a signal's exit code."""


class Reporter:
    """The child's end of the pipe. It reports what must be cleaned up if the child is killed."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def ready(self) -> None:
        """Let signals through, since the command's handlers are installed."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending_signals())

    def partial(self, sign: str, path: Path) -> None:
        """Report a partial file or folder that is about to be made (``+``) or gone (``-``)."""
        self._send(f"{sign}{path}")

    def process(self, sign: str, number: int) -> None:
        """Report a process that was started (``+``) or has ended (``-``)."""
        self._send(f"{'p' if sign == '+' else 'q'}{number}")

    def settled(self) -> None:
        """Report that what was asked for is in place."""
        self._send("=")

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the parent is gone
            os.write(self._handle, os.fsencode(text) + b"\0")


class _Child:
    """The parent's view of the child.

    Attributes:
        number: Its process.
        settled: Whether what was asked for is in place.
        partials: Files and folders it has under way.
        processes: Processes it started.
        pipe: The parent's end of the pipe.
    """

    def __init__(self, number: int, pipe: int) -> None:
        self.number, self.settled = number, False
        self.partials: dict[Path, None] = {}
        self.processes: dict[int, None] = {}
        self.pipe, self._rest = pipe, b""

    def listen(self) -> None:
        """Read the child's reports."""
        while select.select([self.pipe], [], [], 0.0)[0]:
            block = os.read(self.pipe, 1 << 16)
            if not block:
                return
            *whole, self._rest = (self._rest + block).split(b"\0")
            for message in whole:
                self._take(message[:1], message[1:])

    def _take(self, kind: bytes, rest: bytes) -> None:
        if kind == b"+":
            self.partials[Path(os.fsdecode(rest))] = None
        elif kind == b"-":
            self.partials.pop(Path(os.fsdecode(rest)), None)
        elif kind == b"p":
            self.processes[int(rest)] = None
        elif kind == b"q":
            self.processes.pop(int(rest), None)
        else:
            self.settled = True

    def kill(self, *, alive: bool) -> None:
        """Kill the processes that the child started, and where it is `alive` the child itself."""
        for number in (*self.processes, *([self.number] if alive else [])):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)

    def clean_up(self) -> None:
        """Remove what the child had not finished."""
        self.listen()
        if self.partials:
            from edgeseg.files import remove_partial

            for path in self.partials:
                remove_partial(path)


def supervise(work: Callable[[Reporter | None], int]) -> NoReturn:
    """Do `work` in a child process and end this one with its exit code.

    Signals are handled up to the very end, so that a late one does not turn finished work into a failure. Where the
    system cannot fork, or another thread runs, the work is done in this process.

    Args:
        work: The command. It takes the reporter of what it has under way, and returns an exit code.
    """
    if not hasattr(os, "fork") or threading.active_count() > 1:
        sys.exit(work(None))
    _open_standard_handles()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    with _collect_signals() as (arrived, wake):
        reading, writing = os.pipe()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())  # the child unblocks them when its handlers stand
        number = os.fork()
        if number:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ending_signals())
            os.close(writing)
            os._exit(_wait(_Child(number, reading), arrived, wake))
    os.close(reading)
    _be_child(parent, lambda: work(Reporter(writing)))


def _open_standard_handles() -> None:
    """Open closed standard handles to nothing, so that native code does not take a pipe of ours for stdout."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _be_child(parent: int, work: Callable[[], int]) -> NoReturn:
    """Work, and end without returning to the caller.

    Its frames are the parent's, and threads of engines may still run.
    """
    code = 1
    try:
        die_with(parent)
        code = work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _wait(child: _Child, arrived: list[int], wake: int) -> int:
    """Pass signals on until the child has ended; return the exit code."""
    passed, deadline = 0, math.inf
    while True:
        timeout = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        if wake in select.select([wake, child.pipe], [], [], timeout)[0]:
            os.read(wake, 1 << 10)
        child.listen()
        ended, status = os.waitpid(child.number, os.WNOHANG)
        if ended:
            return _outcome(child, status, arrived)
        for number in arrived[passed:]:
            os.kill(child.number, number)
            deadline = min(deadline, time.monotonic() + GRACE_S)
        passed = len(arrived)
        if child.settled:
            deadline = math.inf
        elif time.monotonic() >= deadline:
            child.kill(alive=True)
            os.waitpid(child.number, 0)
            child.clean_up()
            return _say(arrived[0])


def _outcome(child: _Child, status: int, arrived: list[int]) -> int:
    """Compute the exit code of a child that has ended."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    child.kill(alive=False)
    child.clean_up()
    if arrived:
        return _say(arrived[0])
    name = signal_name(-code)
    if -code in ending_signals():  # it was sent to the child alone, before its handlers stood
        return _say(-code)
    why = "most often the memory ran out" if name == "SIGKILL" else "native code crashed on this input"
    _print(f"the command was ended by {name} ({why}); nothing half-written was left")
    return 1


def _say(number: int) -> int:
    code = exit_code_of(number)
    _print(STOPPED[code])
    return code


def _print(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(f"edgeseg: {sentence}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _collect_signals() -> Iterator[tuple[list[int], int]]:
    """Collect the signals that end a command.

    Yields:
        The signals so far, and a handle that becomes readable when one arrives or the child ends.
    """
    arrived: list[int] = []
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    before = {number: signal.getsignal(number) for number in (*ending_signals(), signal.SIGCHLD)}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in ending_signals():
        signal.signal(number, lambda number, frame: arrived.append(number))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        yield arrived, reading
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        os.close(reading)
        os.close(writing)
