"""A pickle machine that builds plain values only.

Python's own unpickler calls what a file names, hashes any key a file chooses (nested tuples take forever or end the
process) and sizes its memo by a number of the file. This one knows every opcode of protocols 0 to 5, calls nothing but
the handful of builders of `names`, and puts an `Inert` for any other object: no class of the file is imported, no
method of it runs, nothing recurses, and work and sizes are counted (`Stream`).
"""

from __future__ import annotations

import pickle as op
import struct
from collections.abc import Callable
from typing import Any

from edgeseg.models.readers.names import Names
from edgeseg.models.readers.parts import Inert, Name
from edgeseg.models.readers.refusals import UnreadableError, damaged
from edgeseg.models.readers.stream import Stream

__all__ = ["Machine"]

_LONGEST_NUMBER = 1000
_LARGEST_KEY = 1 << 31
_REFUSED = {
    op.EXT1: "extension codes", op.EXT2: "extension codes", op.EXT4: "extension codes",
    op.NEXT_BUFFER: "buffers outside of it", op.READONLY_BUFFER: "buffers outside of it",
}  # fmt: skip

Persistent = Callable[[Any], object]


class Machine:
    """Runs one pickle.

    Args:
        stream: Where the pickle starts.
        names: Builders for the names in it; collects what was skipped.
        persistent: Gives the object of a persistent id; None where there must be none.
    """

    def __init__(self, stream: Stream, names: Names, persistent: Persistent | None = None) -> None:
        self._stream, self._names, self._persistent = stream, names, persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> object:
        """Return the object that the pickle holds; the stream then stands behind it.

        Raises:
            UnreadableError: No whole pickle, too much work, or names that have no place in a checkpoint.
        """
        stream = self._stream
        try:
            while (code := stream.code()) != op.STOP:
                step = _STEPS.get(code)
                if step is None:
                    raise _unknown(code)
                step(self)
            return self._stack.pop()
        except (IndexError, KeyError, TypeError, ValueError, struct.error, UnicodeError) as error:
            raise damaged(f"its pickle is not whole: {type(error).__name__}") from error

    # --- the stack

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def mark(self) -> None:
        """Start a group."""
        self._marks.append(self._stack)
        self._stack = []

    def group(self) -> list[Any]:
        """End the latest group and give what it holds."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def drop(self) -> None:
        """Take the top away, or an empty group."""
        if self._stack:
            self._stack.pop()
        else:
            self.group()

    def repeat(self) -> None:
        """Push the top once more."""
        self.push(self._stack[-1])

    def tuple_of(self, count: int) -> None:
        """Make a tuple of the upper `count` values."""
        if len(self._stack) < count:
            raise IndexError
        items = tuple(self._stack[-count:])
        self._stack[-count:] = [items]

    # --- containers

    def append(self, items: list[Any]) -> None:
        """Add to the list on top; a stand-in takes them and keeps none."""
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError

    def assign(self, items: list[Any]) -> None:
        """Set keys, each followed by its value, in the dict on top; a stand-in takes them and keeps none."""
        target = self._stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                self._set(target, key, value)
        elif not isinstance(target, Inert):
            raise TypeError

    def _set(self, target: dict[Any, Any], key: object, value: object) -> None:
        """Set one key; only text and small numbers are keys, because hashing others can take forever."""
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < _LARGEST_KEY):
            target[key] = value
        else:
            self._names.skip(f"a dict's key of type {_kind(key)}")

    def new_dict(self) -> None:
        """Make a dict of the latest group."""
        items = self.group()
        self.push({})
        self.assign(items)

    # --- the memo

    def remember(self, index: int) -> None:
        """Keep the top under a number."""
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        """Push what is kept under a number."""
        self.push(self._memo[index])

    # --- names and calls

    def name(self, module: object, name: object) -> None:
        """Push what a name stands for."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        self.push(self._names.find(module, name))

    def name_on_stack(self) -> None:
        """Push what the two words on top name."""
        name = self._stack.pop()
        self.name(self._stack.pop(), name)

    def call(self, target: object, arguments: object) -> None:
        """Push what calling `target` builds: one of the builders' values, or a stand-in."""
        if not isinstance(arguments, (tuple, list)):
            raise TypeError
        self.push(self._names.build(target, tuple(arguments), self._stream))

    def reduce(self) -> None:
        """Call with the tuple on top."""
        arguments = self._stack.pop()
        self.call(self._stack.pop(), arguments)

    def new_with_keywords(self) -> None:
        """Call with a tuple and a dict; builders take no keywords."""
        keywords, arguments, target = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self.call(target, () if keywords else arguments)

    def call_first(self) -> None:
        """Call the first of the group with the rest."""
        target, *arguments = self.group()
        self.call(target, arguments)

    def instance(self) -> None:
        """Call a name with the group."""
        module, name = self._stream.line().decode(), self._stream.line().decode()
        arguments = self.group()
        self.name(module, name)
        self.call(self._stack.pop(), arguments)

    def build(self) -> None:
        """Give the state on top to the value below."""
        state = self._stack.pop()
        self._names.set_state(self._stack[-1], state)

    def persistent(self, identity: object) -> None:
        """Push the object that lies outside of the pickle."""
        if self._persistent is None:
            raise damaged("its pickle points at objects outside of it")
        self.push(self._persistent(identity))

    # --- arguments

    def text(self, count: int) -> str:
        """Return the next `count` bytes as UTF-8."""
        return self._stream.take(count).decode("utf-8", "surrogatepass")

    def old_text(self, count: int) -> str:
        """Return the next `count` bytes as Python 2 wrote both text and bytes."""
        return self._stream.take(count).decode("latin-1")

    def quoted(self) -> str:
        """Return a quoted line of protocol 0."""
        line = self._stream.line(self._stream.size)
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError
        return line[1:-1].decode("unicode_escape")

    def whole(self) -> int | bool:
        """Return a number's line of protocol 0."""
        line = self._stream.line()
        return {b"00": False, b"01": True}.get(line, int(line.rstrip(b"L")))

    def long(self, count: int) -> int:
        """Return the next `count` bytes as a number."""
        if not 0 <= count <= _LONGEST_NUMBER:
            raise damaged(f"its pickle has a number of {count} bytes")
        return int.from_bytes(self._stream.take(count), "little", signed=True)

    def frame(self) -> None:
        """Check a frame's size; frames are read as they come."""
        if self._stream.number("<Q") > self._stream.left:
            raise damaged("a frame of its pickle is longer than the file")

    def start(self) -> None:
        """Check the protocol."""
        if self._stream.number("<B") > op.HIGHEST_PROTOCOL:
            raise damaged("its pickle has a protocol that does not exist")

    def number(self, form: str) -> int:
        """Return the next number of a `struct` format."""
        return self._stream.number(form)

    def float64(self) -> float:
        """Return the next eight bytes as a number."""
        value: float = struct.unpack(">d", self._stream.take(8))[0]
        return value

    def line(self) -> bytes:
        """Return the next short line."""
        return self._stream.line()

    def long_line(self) -> bytes:
        """Return the next line, of any length."""
        return self._stream.line(self._stream.size)

    def sized(self, form: str) -> bytes | bytearray:
        """Return the bytes after their length."""
        return self._stream.take_own(self._stream.number(form))


def _unknown(code: bytes) -> UnreadableError:
    if code in _REFUSED:
        return UnreadableError(f"has a pickle that uses {_REFUSED[code]}, which no checkpoint needs")
    return damaged(f"its pickle has a step 0x{code.hex()} that does not exist")


def _kind(value: object) -> str:
    return value.name if isinstance(value, (Inert, Name)) else type(value).__name__


_STEPS: dict[bytes, Callable[[Machine], None]] = {
    op.PROTO: lambda m: m.start(),
    op.FRAME: lambda m: m.frame(),
    op.MARK: lambda m: m.mark(),
    op.POP: lambda m: m.drop(),
    op.POP_MARK: lambda m: m.group().clear(),
    op.DUP: lambda m: m.repeat(),
    op.NONE: lambda m: m.push(None),
    op.NEWTRUE: lambda m: m.push(True),
    op.NEWFALSE: lambda m: m.push(False),
    op.INT: lambda m: m.push(m.whole()),
    op.LONG: lambda m: m.push(m.whole()),
    op.BININT: lambda m: m.push(m.number("<i")),
    op.BININT1: lambda m: m.push(m.number("<B")),
    op.BININT2: lambda m: m.push(m.number("<H")),
    op.LONG1: lambda m: m.push(m.long(m.number("<B"))),
    op.LONG4: lambda m: m.push(m.long(m.number("<i"))),
    op.FLOAT: lambda m: m.push(float(m.line())),
    op.BINFLOAT: lambda m: m.push(m.float64()),
    op.STRING: lambda m: m.push(m.quoted()),
    op.BINSTRING: lambda m: m.push(m.old_text(m.number("<i"))),
    op.SHORT_BINSTRING: lambda m: m.push(m.old_text(m.number("<B"))),
    op.UNICODE: lambda m: m.push(m.long_line().decode("raw-unicode-escape")),
    op.BINUNICODE: lambda m: m.push(m.text(m.number("<I"))),
    op.SHORT_BINUNICODE: lambda m: m.push(m.text(m.number("<B"))),
    op.BINUNICODE8: lambda m: m.push(m.text(m.number("<Q"))),
    op.BINBYTES: lambda m: m.push(m.sized("<I")),
    op.SHORT_BINBYTES: lambda m: m.push(m.sized("<B")),
    op.BINBYTES8: lambda m: m.push(m.sized("<Q")),
    op.BYTEARRAY8: lambda m: m.push(m.sized("<Q")),
    op.EMPTY_TUPLE: lambda m: m.push(()),
    op.TUPLE: lambda m: m.push(tuple(m.group())),
    op.TUPLE1: lambda m: m.tuple_of(1),
    op.TUPLE2: lambda m: m.tuple_of(2),
    op.TUPLE3: lambda m: m.tuple_of(3),
    op.EMPTY_LIST: lambda m: m.push([]),
    op.LIST: lambda m: m.push(m.group()),
    op.EMPTY_SET: lambda m: m.push([]),
    op.FROZENSET: lambda m: m.push(m.group()),
    op.EMPTY_DICT: lambda m: m.push({}),
    op.DICT: lambda m: m.new_dict(),
    op.APPEND: lambda m: m.append([m._stack.pop()]),
    op.APPENDS: lambda m: m.append(m.group()),
    op.ADDITEMS: lambda m: m.append(m.group()),
    op.SETITEM: lambda m: m.assign([m._stack.pop(), m._stack.pop()][::-1]),
    op.SETITEMS: lambda m: m.assign(m.group()),
    op.GLOBAL: lambda m: m.name(m.line().decode(), m.line().decode()),
    op.STACK_GLOBAL: lambda m: m.name_on_stack(),
    op.REDUCE: lambda m: m.reduce(),
    op.NEWOBJ: lambda m: m.reduce(),
    op.NEWOBJ_EX: lambda m: m.new_with_keywords(),
    op.OBJ: lambda m: m.call_first(),
    op.INST: lambda m: m.instance(),
    op.BUILD: lambda m: m.build(),
    op.PERSID: lambda m: m.persistent(m.line().decode()),
    op.BINPERSID: lambda m: m.persistent(m._stack.pop()),
    op.GET: lambda m: m.recall(int(m.line())),
    op.BINGET: lambda m: m.recall(m.number("<B")),
    op.LONG_BINGET: lambda m: m.recall(m.number("<I")),
    op.PUT: lambda m: m.remember(int(m.line())),
    op.BINPUT: lambda m: m.remember(m.number("<B")),
    op.LONG_BINPUT: lambda m: m.remember(m.number("<I")),
    op.MEMOIZE: lambda m: m.remember(len(m._memo)),
}
