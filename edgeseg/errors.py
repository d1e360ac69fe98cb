"""The errors edgeseg raises, and the exit code the command line ends with for each.

    EdgesegError                    1   base class; catch this one
    ├── UsageError                  2   an impossible argument: unknown name, wrong size, contradictory options
    │   ├── UnknownNameError        2   an unknown network, target, label set or option; suggests the nearest
    │   └── SizeError               2   a height x width the network or graph does not take; names the nearest it does
    ├── CheckpointError             3   a checkpoint that cannot be read or does not match the network
    ├── ExportError                 4   the network could not be turned into a graph or engine
    │   └── ParityError             4   the masks of a graph are not those of PyTorch
    ├── BundleError                 5   a bundle that is missing, damaged, or newer than this edgeseg
    ├── TargetUnavailableError      6   the machine lacks what the target needs (package, GPU, driver)
    ├── InputError                  7   an image, folder, video or camera that cannot be read
    ├── StorageError                8   writing failed (disk full, no permission)
    │   └── ResultPathError         8   something else is in the place of one picture's result; others can be written
    ├── PartialFailureError         9   some inputs failed and were reported; the rest was done
    └── RegressionError            10   a benchmark is slower than the one it was compared with

Ctrl-C ends a command with 130. Every message is one sentence: what was got, what was expected, what to do. It is one
line of visible characters, whatever names it quotes; addresses are quoted without user and password. A very long one
is cut in the middle.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from edgeseg.credentials import without_credentials
from edgeseg.text import one_line, printable

__all__ = [
    "BundleError",
    "CheckpointError",
    "EdgesegError",
    "ExportError",
    "InputError",
    "ParityError",
    "PartialFailureError",
    "RegressionError",
    "ResultPathError",
    "SizeError",
    "StorageError",
    "TargetUnavailableError",
    "UnknownNameError",
    "UsageError",
]

_LONGEST, _TAIL = 2000, 600


class EdgesegError(Exception):
    """Base class of every error that edgeseg raises on purpose.

    Args:
        message: The sentence. Characters that a terminal would act on, newlines included, are replaced by escapes.
            Beyond 2,000 characters the middle is left out, so that what to do stays.

    Example:
        >>> try:
        ...     raise UsageError("size 'big' is not HEIGHTxWIDTH")
        ... except EdgesegError as error:
        ...     print(error.exit_code, error)
        2 size 'big' is not HEIGHTxWIDTH
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(_sentence(str(message)))


class UsageError(EdgesegError, ValueError):
    """An argument that cannot be used."""

    exit_code = 2


class UnknownNameError(UsageError):
    """An unknown name; the message suggests the nearest known ones.

    Args:
        kind: What was asked for, such as ``"network"`` or ``"target"``.
        got: The word received.
        known: All words that would have been accepted.
        hint: What to do when no suggestion fits.

    Example:
        >>> UnknownNameError("target", "openvinno", ["ort", "openvino"])
        UnknownNameError("unknown target 'openvinno': did you mean 'openvino'?")
    """

    def __init__(self, kind: str, got: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.got, self.known = kind, got, sorted(known)
        name, words = one_line(got), [one_line(word) for word in self.known]
        close = difflib.get_close_matches(name.lower(), words, n=3, cutoff=0.5)
        if close:
            advice = "did you mean " + " or ".join(f"'{word}'" for word in close) + "?"
        elif len(words) <= 12:
            advice = "known are " + ", ".join(words) + "."
        else:
            advice = hint or f"{len(words)} are known."
        self._arguments = kind, got, self.known, hint
        super().__init__(f"unknown {kind} '{name}': {advice}")

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, list[str], str]]:
        """Pickle as the arguments, so that an error of a worker process reaches its parent."""
        return type(self), self._arguments


class SizeError(UsageError):
    """A height x width that the network, graph or source does not take."""


class CheckpointError(EdgesegError):
    """A checkpoint that cannot be read, or whose tensors do not match the network."""

    exit_code = 3


class ExportError(EdgesegError):
    """The network could not be turned into a graph or an engine."""

    exit_code = 4


class ParityError(ExportError):
    """A graph or engine whose masks differ from fp32 PyTorch's by more than the budget."""


class BundleError(EdgesegError):
    """A bundle that is missing, damaged, or written by a newer edgeseg."""

    exit_code = 5


class TargetUnavailableError(EdgesegError):
    """The machine lacks what the target needs. Nothing else is used in its place."""

    exit_code = 6


class InputError(EdgesegError):
    """An image, folder, video, camera or label map that cannot be read or used."""

    exit_code = 7


class StorageError(EdgesegError):
    """Writing a file failed."""

    exit_code = 8


class ResultPathError(StorageError):
    """Something else is in the place of one picture's result. The results of other pictures can be written."""


class PartialFailureError(EdgesegError):
    """Some inputs failed, each of which was reported. The rest was done."""

    exit_code = 9


class RegressionError(EdgesegError):
    """A benchmark is slower than the one it was compared with, by more than was allowed."""

    exit_code = 10


def _sentence(text: str) -> str:
    """Make one line of visible characters without the passwords of addresses; cut a very long one in the middle."""
    text = without_credentials(text, properties=False)
    if len(text) > _LONGEST:  # before the escapes, which make it longer and must not be cut through
        text = f"{text[: _LONGEST - _TAIL]} … {text[-_TAIL:]}"
    return printable(text).replace("\n", "\\n")
