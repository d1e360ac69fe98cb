"""Lines of the user's own code: where a forward takes values out of its tensors, and what the exporter refused."""

from __future__ import annotations

import contextlib
import linecache
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode

from edgeseg.text import first_line, one_line

__all__ = ["Line", "ReadingLines", "SizeDecision", "listed", "recorded_size_decisions", "refusal"]

_HERE = str(Path(__file__).parents[1])
_PACKAGES = Path(torch.__file__).parents[1]
_LIBRARIES = (
    _HERE,
    *(str(_PACKAGES / name) for name in ("torch", "onnxscript", "onnx_ir", "sympy", "mpmath", "numpy")),
)
_STANDARD = str(Path(contextlib.__file__).parent)
_MADE = ("<eval_with_key>", "<string>", "<frozen")
"""File names of code that was made while it ran."""

_READS = frozenset(
    {
        "__array__",
        "__bool__",
        "__contains__",
        "__float__",
        "__index__",
        "__int__",
        "allclose",
        "equal",
        "is_nonzero",
        "item",
        "numpy",
        "tolist",
    }
)
"""What takes a value out of a tensor into Python."""

_DATA_DEPENDENT = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)
_CHOOSE = "compute both sides and choose with torch.where, or leave one of them"
_LONGEST = 100
_ABOVE_ONE = re.compile(r"(> 1|>= 1|^Ne\(.*, 1\))$")
"""What every operator asks of a side, and no branch of the user's."""


@dataclass(frozen=True)
class Line:
    """A line of a file.

    Attributes:
        file: As Python names it.
        number: Counted from 1.
        text: Of the line, where it is known without the file.
    """

    file: str
    number: int
    text: str = ""

    @property
    def code(self) -> str:
        """The text of the line; empty where the file is not there."""
        return one_line((self.text or linecache.getline(self.file, self.number)).strip(), _LONGEST)

    def __str__(self) -> str:
        """``FILE:NUMBER`` and the code, the file relative to the current folder where it lies in it."""
        file = Path(self.file)
        with contextlib.suppress(ValueError, OSError):
            file = file.relative_to(Path.cwd())
        where = f"{one_line(file)}:{self.number}"
        return f"{where} '{self.code}'" if self.code else where


@dataclass(frozen=True)
class SizeDecision:
    """A line at which the exporter had to know more of the picture's size than that it is free.

    Attributes:
        line: Of the user's own code.
        numbers: Integers in what had to be known, such as the size that a branch is about.
    """

    line: Line
    numbers: tuple[int, ...] = ()


class ReadingLines(TorchFunctionMode):
    """Notes, while it is entered, the lines of the user's code that take values out of tensors into Python.

    Attributes:
        lines: In order, each once.

    Example:
        >>> with ReadingLines() as reading:
        ...     _ = torch.ones(3) + 1
        >>> reading.lines
        []
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _READS:
            line = _line_of(sys._getframe(1))
            if line is not None and line not in self.lines:
                self.lines.append(line)
        return func(*args, **(kwargs or {}))


class _Decisions(logging.Handler):
    """Notes the user's line under which ``torch.export`` asks more of a size: it logs that within that line's call."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: dict[Line, set[int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if "[guard added]" not in str(record.msg) or not isinstance(record.args, tuple) or len(record.args) < 2:
            return
        line, said = _line_of(sys._getframe(1)), str(record.args[1])
        if line is not None and not _ABOVE_ONE.search(said):
            self.found.setdefault(line, set()).update(int(number) for number in re.findall(r"\b\d+\b", said))


@contextlib.contextmanager
def recorded_size_decisions() -> Iterator[list[SizeDecision]]:
    """Give a list that holds, at the end, the lines of the user's code that decided by a size that is free."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    decisions, recorder = list[SizeDecision](), _Decisions()
    before = logger.level, logger.propagate
    logger.addHandler(recorder)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield decisions
    finally:
        logger.removeHandler(recorder)
        logger.setLevel(before[0])
        logger.propagate = before[1]
    decisions.extend(SizeDecision(line, tuple(sorted(numbers))) for line, numbers in recorder.found.items())


def refusal(error: BaseException) -> str | None:
    """Say in one sentence what of the user's code ``torch.export`` or its translation to ONNX refused, and what to do.

    Args:
        error: What was raised, with its causes and tracebacks.

    Returns:
        The sentence; None where the error tells of no line of the user's.
    """
    causes = list(_causes(error))
    node = next((found for cause in causes for found in [_node_of(cause)] if found is not None), None)
    if node is not None:
        return _without_form(node, causes)
    lines = [line for cause in causes for line in [_line_in(cause)] if line is not None]
    if not lines:
        return None
    first = causes[0]
    if isinstance(first, _DATA_DEPENDENT) or any(f"{kind.__name__}:" in str(first) for kind in _DATA_DEPENDENT):
        return f"{lines[0]} decides by the values of a tensor, and a graph takes no branches; {_CHOOSE}"
    return f"{lines[0]} cannot be exported: {first_line(first)}; write it with operators that torch.export takes"


def listed(lines: Iterable[Line], most: int = 3) -> str:
    """Write lines one after the other, the first few of many."""
    shown = [str(line) for line in lines]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _without_form(node: torch.fx.Node, causes: list[BaseException]) -> str:
    """Say which operator has no ONNX form, and which line called it."""
    line = _line_in_text(node.meta.get("stack_trace") or "")
    operator = str(node.target).removesuffix(".default")
    why = (
        "has no ONNX form"
        if "No ONNX function" in str(causes[0])
        else f"has none in ONNX here ({first_line(causes[0])})"
    )
    called = f" of {line}" if line is not None else ""
    return f"the operator {operator}{called} {why}; compute it from operators that have one, or after the export"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, the one that was there first in front."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return reversed(chain)


def _node_of(error: BaseException) -> torch.fx.Node | None:
    """The node that was translated when an error was raised: the innermost one that tells where it comes from."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node) and node.op == "call_function" and "onnx" in frame.f_code.co_filename:
            found = node
    return found


def _line_in(error: BaseException) -> Line | None:
    """The innermost line of the user's code that an error passed through."""
    told = _line_of_script(str(error))
    if told is not None:
        return told
    frames = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    return _innermost(frames)


def _line_of(frame: FrameType | None) -> Line | None:
    """The innermost line of the user's code within the call that edgeseg made of it."""
    for inner, number in traceback.walk_stack(frame):
        file = inner.f_code.co_filename
        if file.startswith(_HERE):
            return None
        if _is_own(file):
            return Line(file, number)
    return None


_ENTRY = re.compile(r'File "([^"]+)", line (\d+)')


def _line_in_text(stack: str) -> Line | None:
    """The innermost line of the user's code in a stack that was written down."""
    return _innermost((file, int(number)) for file, number in _ENTRY.findall(stack))


def _line_of_script(text: str) -> Line | None:
    """The line that TorchScript's interpreter failed at, in the code that the script was made from."""
    _, found, stack = text.rpartition("Traceback of TorchScript")  # of an archive's code first, then the original's
    if not found:
        return None
    line, before = _line_in_text(stack), stack.partition("~~~~")[0].rstrip()
    return None if line is None else replace(line, text=before.rpartition("\n")[2])


def _innermost(frames: Iterable[tuple[str, int]]) -> Line | None:
    own = [Line(file, number) for file, number in frames if _is_own(file)]
    return own[-1] if own else None


def _is_own(file: str) -> bool:
    """Whether a file is the user's, or of a package that the user's network comes from."""
    if file.startswith((*_LIBRARIES, *_MADE)):
        return False
    return not file.startswith(_STANDARD) or "site-packages" in file
