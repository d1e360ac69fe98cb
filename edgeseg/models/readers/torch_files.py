"""PyTorch's two forms of a checkpoint: a zip of a pickle and one entry per storage, and the older single stream."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from edgeseg.models.readers.kinds import check_archive
from edgeseg.models.readers.machine import Machine
from edgeseg.models.readers.names import Names
from edgeseg.models.readers.parts import Name, Stored, turned
from edgeseg.models.readers.refusals import damaged
from edgeseg.models.readers.stream import Stream
from edgeseg.models.readers.tensors import Storage, storage_type
from edgeseg.models.readers.zips import Archive

__all__ = ["MAGIC", "read_stream", "read_zip"]

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What the older form starts with: a pickled number."""

_NUMBER = 0x1950A86A20F9469CFC6C
_VERSION = 1001


def read_zip(path: Path) -> tuple[object, Names, int]:
    """Read the newer form.

    Returns:
        The tree, what was skipped, and the bytes that the file unpacks to.

    Raises:
        UnreadableError: See `read_tree`.
    """
    archive = Archive(path)
    check_archive(archive.entries)
    pickles = [name for name in archive.entries if name.rsplit("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise damaged("it is a zip with several checkpoints")
    folder = pickles[0].removesuffix("data.pkl")
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in archive.entries else b"little"
    if order not in (b"little", b"big"):
        raise damaged("its byte order is neither little nor big")
    content, names = archive.read(pickles[0]), Names()
    storages = _ZipStorages(archive, folder, order == b"little")
    machine = Machine(Stream(io.BytesIO(content), len(content)), names, storages.find)
    return machine.load(), names, archive.grown


class _ZipStorages:
    """Storages by key, each an entry of the archive."""

    def __init__(self, archive: Archive, folder: str, little: bool) -> None:
        self._archive, self._folder, self._little = archive, folder, little
        self._sources: dict[str, Stored] = {}

    def find(self, identity: Any) -> Storage:
        """Return the storage of ``("storage", type, key, device, number of values)``."""
        kind, key, count = _parts(identity, 5)
        dtype, width = storage_type(kind)
        entry = self._archive.entries.get(f"{self._folder}data/{key}")
        if entry is None or entry.size != count * width:
            raise damaged(f"the bytes of storage {key} are missing or of another size")
        if key not in self._sources:
            swap = 1 if dtype is None else turned(dtype, self._little)
            self._sources[key] = self._archive.source(entry, swap)
        return Storage(self._sources[key], dtype, 0, count, self._archive.grown)


def _parts(identity: Any, length: int) -> tuple[Name, str, int]:
    """Return the type, key and number of values of a persistent id."""
    if not isinstance(identity, tuple) or len(identity) < length or identity[0] != "storage":
        raise damaged("its pickle points at something else than storages")
    kind, key, count = identity[1], identity[2], identity[4]
    if not isinstance(kind, Name) or not isinstance(key, (str, int)) or type(count) is not int or count < 0:
        raise damaged("a storage's parts are none")
    return kind, str(key)[:200], count


def read_stream(path: Path) -> tuple[object, Names, int]:
    """Read the older form.

    Returns:
        As `read_zip`.

    Raises:
        UnreadableError: See `read_tree`.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        stream, names = Stream(file, length), Names()
        if [_plain(stream, names), _plain(stream, names)] != [_NUMBER, _VERSION]:
            raise damaged("its first numbers are not PyTorch's")
        _plain(stream, names)  # facts of the machine that wrote it; values are written in one byte order everywhere
        storages = _StreamStorages(path, length)
        tree = Machine(stream, names, storages.find).load()
        storages.place(stream, _plain(stream, names))
    return tree, names, length


def _plain(stream: Stream, names: Names) -> object:
    """Return the next pickle, one that points at no storages."""
    return Machine(stream, names).load()


class _StreamStorages:
    """Storages by key, whose bytes follow the pickles."""

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._length = path, length
        self._sources: dict[str, tuple[Stored, int]] = {}

    def find(self, identity: Any) -> object:
        """Return the storage of ``("storage", type, key, device, number of values, view)``."""
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # a class and its source: only the class counts, and that is a name
        kind, key, count = _parts(identity, 5)
        dtype, width = storage_type(kind)
        if count * width > self._length:
            raise damaged(f"storage {key} is larger than the file")
        source, width_before = self._sources.setdefault(
            key, (Stored(self._path, None, count * width, swap=turned(dtype or torch.uint8, True)), width)
        )
        if (source.size, width_before) != (count * width, width):
            raise damaged(f"storage {key} has two sizes")
        view = identity[5] if len(identity) > 5 else None
        first, count = (0, count) if view is None else _view(view, count)
        return Storage(source, dtype, first, count, self._length)

    def place(self, stream: Stream, keys: object) -> None:
        """Note where the bytes of each key lie; they follow each other, each after its number of values."""
        if not isinstance(keys, list):
            raise damaged("its list of storages is none")
        for key in keys:
            source, width = self._sources.pop(str(key)[:200], (None, 1))
            if source is None:
                raise damaged("its list of storages has one that nothing uses, or one twice")
            if stream.number("<q") * width != source.size:
                raise damaged("a storage has two sizes")
            source.start = stream.position
            stream.skip(source.size)
        if self._sources:
            raise damaged("its list of storages lacks some")


def _view(view: Any, count: int) -> tuple[int, int]:
    """Return the first value and number of values of a view ``(key, first, number)`` of a storage of `count` values."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise damaged("a storage's view is none")
    _, first, length = view
    if type(first) is not int or type(length) is not int or first < 0 or length < 0 or first + length > count:
        raise damaged("a storage's view reaches beyond it")
    return first, length
