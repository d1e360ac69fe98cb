"""What a name in a pickle may build: containers, text, numpy arrays and tensors; for everything else a stand-in."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from edgeseg.models.readers import arrays, tensors
from edgeseg.models.readers.parts import Inert, Name
from edgeseg.models.readers.refusals import RESAVE, UnreadableError, damaged
from edgeseg.models.readers.stream import MANY, Stream
from edgeseg.text import one_line

__all__ = ["Names"]

_MOST_SKIPPED = 50
_BUILTINS = ("builtins", "__builtin__")
_CLASSES = {name for name, value in vars(builtins).items() if isinstance(value, type)}
_PLAIN = {*_CLASSES, "getattr", "long", "unicode", "basestring", "xrange", "file"}
_HOSTILE = {
    "os", "posix", "nt", "sys", "subprocess", "commands", "shutil", "socket", "ctypes", "_ctypes", "importlib",
    "runpy", "pty", "marshal", "code", "codeop", "pdb", "bdb", "timeit", "webbrowser", "operator", "_operator",
}  # fmt: skip
"""Modules that checkpoints do not name and attacks do. Nothing is called either way; the user is warned."""
_RENAMED = {"numpy._core": "numpy.core", "torch.tensor": "torch._tensor", "copy_reg": "copyreg"}


class Names:
    """The builders, and what was skipped because there is none.

    Attributes:
        skipped: Names of the classes that stand-ins were put for, each once.
    """

    def __init__(self) -> None:
        self._skipped: dict[str, None] = {}

    @property
    def skipped(self) -> tuple[str, ...]:
        """See the class."""
        return tuple(self._skipped)

    def skip(self, name: str) -> Inert:
        """Note a class that is not built, and give the stand-in."""
        if len(self._skipped) < _MOST_SKIPPED:
            self._skipped[one_line(name, 100)] = None
        return Inert(name)

    def find(self, module: str, word: str) -> Name:
        """Return the name, where it may be said at all.

        Raises:
            UnreadableError: It stands for something that only code needs.
        """
        for old, new in _RENAMED.items():
            if module == old or module.startswith(f"{old}."):
                module = new + module[len(old) :]
        name = Name(module, word)
        first = word.split(".", 1)[0]
        if module.split(".", 1)[0] in _HOSTILE or (module in _BUILTINS and first not in _PLAIN):
            raise UnreadableError(f"holds a pickled {name.name}, which could run code and is not loaded", RESAVE)
        return name

    def build(self, target: object, arguments: tuple[Any, ...], stream: Stream) -> object:
        """Return what calling `target` with the arguments gives.

        Raises:
            UnreadableError: The arguments of a builder cannot be.
        """
        if not isinstance(target, Name):
            return target if isinstance(target, Inert) else self.skip(f"a call of a {type(target).__name__}")
        name, given = _inner_call(target, arguments)
        builder = _builder(name)
        if builder is not None:
            return builder(given, stream)
        if (name.module, name.word) == ("copyreg", "_reconstructor") and given and isinstance(given[0], Name):
            name = given[0]
        return self.skip(name.name)

    def set_state(self, target: object, state: object) -> None:
        """Complete an array or its type; any other state is dropped."""
        if isinstance(target, (arrays.Kind, arrays.Draft)):
            target.set_state(state)


def _inner_call(target: Name, arguments: tuple[Any, ...]) -> tuple[Name, tuple[Any, ...]]:
    """Return the call itself, or the one that rebuilds a tensor subclass: ``(function, class, arguments, state)``."""
    while target.word in tensors.UNWRAPPED:
        if len(arguments) < 3 or not isinstance(arguments[0], Name) or not isinstance(arguments[2], tuple):
            raise damaged("a tensor's parts are none")
        target, arguments = arguments[0], arguments[2]
    return target, arguments


_Build = Callable[[tuple[Any, ...], Stream], object]


def _builder(name: Name) -> _Build | None:
    whole = f"{name.module}.{name.word}"
    if whole.startswith("__builtin__."):
        whole = "builtins." + name.word
    return _CONTAINERS.get(whole) or arrays.BUILDERS.get(whole) or tensors.BUILDERS.get(whole)


def _same(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return the items of a container as they are: copies would let a short pickle fill the memory."""
    return arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else []


def _pairs(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return a dict of a list of pairs."""
    made: dict[str, Any] = {}
    given = arguments[0] if arguments else ()
    if isinstance(given, dict):
        return given
    if not isinstance(given, (list, tuple)):
        raise damaged("a dict's items are none")
    stream.spend(len(given))
    for pair in given:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise damaged("a dict's items are none")
        if isinstance(pair[0], str):
            made[pair[0]] = pair[1]
    return made


def _empty(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return the dict of a factory, filled by what follows."""
    return {}


def _encoded(arguments: tuple[Any, ...], stream: Stream) -> object:
    """Return the bytes that protocols up to 2 write as text."""
    if not arguments or not isinstance(arguments[0], (str, bytes, bytearray)):
        return b""
    text = arguments[0]
    stream.recode(len(text))
    if not isinstance(text, str):
        return text
    return text.encode("latin-1") if len(text) < MANY else bytearray(text, "latin-1")


def _complex(arguments: tuple[Any, ...], stream: Stream) -> object:
    return complex(*(part if isinstance(part, (int, float)) else 0 for part in arguments[:2]))


def _nothing(arguments: tuple[Any, ...], stream: Stream) -> object:
    return None


_CONTAINERS: dict[str, _Build] = {
    "builtins.list": _same,
    "builtins.tuple": _same,
    "builtins.set": _same,
    "builtins.frozenset": _same,
    "torch.Size": _same,
    "builtins.dict": _pairs,
    "collections.OrderedDict": _pairs,
    "collections.Counter": _pairs,
    "collections.defaultdict": _empty,
    "builtins.bytes": _encoded,
    "builtins.bytearray": _encoded,
    "_codecs.encode": _encoded,
    "builtins.complex": _complex,
    "torch.device": _nothing,
    "torch.serialization._get_layout": _nothing,
}
