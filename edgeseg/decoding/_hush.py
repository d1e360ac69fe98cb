"""Keep picture libraries from printing: libpng and libjpeg write to standard error themselves, past Python.

They know only file descriptor 2, of which a process has one. While a thread decodes, the descriptor leads to a file in
memory. Lines of the libraries are kept for the caller. All others (of other threads) are passed on when a decoder ends.
A program that another thread starts at that moment inherits the file: what it writes to standard error is lost. Where
descriptor 2 is closed, or no such file can be created, nothing is redirected.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

import cv2

__all__ = ["hushed"]

_LIBJPEG = (
    "Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression|Unknown Adobe color|"
    "Warning: unknown JFIF|Application transferred too|Caution: quantization|Bogus |Unsupported marker"
)
_JPEG_LINE = re.compile(rf"(?:{_LIBJPEG})".encode())
_LIBRARY_LINE = re.compile(rf"(?:libpng (?:warning|error): |PXM::|{_LIBJPEG})".encode())


class _Redirection:
    """Descriptor 2, redirected while any thread decodes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self._saved = self._sink = -1
        self._read = 0
        self._level = 0
        self._jpeg: list[str] = []

    def enter(self) -> int:
        """Redirect unless that is done; return the number of libjpeg's lines so far."""
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self._level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
                self._jpeg.clear()
                self._redirect()
            self._drain()
            return len(self._jpeg)

    def leave(self, start: int) -> list[str]:
        """Undo it when the last thread leaves; return libjpeg's lines since `start`."""
        with self.lock:
            self._drain()
            lines = self._jpeg[start:]
            self.inside -= 1
            if self.inside == 0:
                cv2.utils.logging.setLogLevel(self._level)
                self.restore()
            return lines

    def restore(self) -> None:
        """Undo the redirection."""
        if self._saved >= 0:
            os.dup2(self._saved, 2)
            self._drain()
            os.close(self._saved)
            os.close(self._sink)
            self._saved = self._sink = -1

    def _redirect(self) -> None:
        self._read = 0
        try:
            saved = os.dup(2)
        except OSError:
            return
        try:
            self._sink = _memory_file()
            os.dup2(self._sink, 2)
        except OSError:
            os.close(saved)
        else:
            self._saved = saved

    def _drain(self) -> None:
        """Keep the libraries' lines and pass all others on."""
        if self._saved < 0:
            return
        size = os.fstat(self._sink).st_size
        if size <= self._read:
            return
        written = os.pread(self._sink, size - self._read, self._read)
        self._read = size
        for line in written.splitlines(keepends=True):
            if _JPEG_LINE.match(line):
                self._jpeg.append(line.decode("utf-8", "replace").strip())
            if not _LIBRARY_LINE.match(line):
                with contextlib.suppress(OSError):
                    os.write(self._saved, line)

    def after_fork(self) -> None:
        """Undo the redirection in a forked child, where the threads that decoded do not exist."""
        if self.inside:
            cv2.utils.logging.setLogLevel(self._level)
            self.inside = 0
            if self._saved >= 0:
                os.dup2(self._saved, 2)
                os.close(self._saved)
                os.close(self._sink)
                self._saved = self._sink = -1
        self.lock.release()


def _memory_file() -> int:
    """Open an empty file that no other process sees, written at its end."""
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.memfd_create("edgeseg-stderr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_REDIRECTION = _Redirection()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _REDIRECTION.lock.acquire(),
        after_in_parent=lambda: _REDIRECTION.lock.release(),
        after_in_child=lambda: _REDIRECTION.after_fork(),
    )


@contextlib.contextmanager
def hushed() -> Iterator[list[str]]:
    """Decode without output; any number of threads may at once.

    Yields:
        A list that contains, after the block, the lines that libjpeg printed meanwhile. Lines of other threads are
        among them, so who reads it must let one thread in at a time.
    """
    lines: list[str] = []
    start = _REDIRECTION.enter()
    try:
        yield lines
    finally:
        lines += _REDIRECTION.leave(start)
