"""Which reader reads a file, known by its first bytes and, where those say nothing, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.models.readers.kinds import HEAD, check_head, looks_like_text
from edgeseg.models.readers.machine import Machine
from edgeseg.models.readers.names import Names
from edgeseg.models.readers.onnx_files import read_onnx
from edgeseg.models.readers.refusals import UnreadableError
from edgeseg.models.readers.safe_files import read_safetensors
from edgeseg.models.readers.stream import Stream
from edgeseg.models.readers.torch_files import MAGIC, read_stream, read_zip

__all__ = ["Tree", "read_tree"]


@dataclass(frozen=True)
class Tree:
    """What a checkpoint file holds.

    Attributes:
        root: Plain values, in which `TensorNote` and `ArrayNote` stand for tensors, `Draft` for an array, `Inert` for
            an object that was not built and `Unsupported` for a tensor that is not read.
        skipped: Names of the classes whose objects were not built.
        size: Bytes that the file unpacks to.
    """

    root: object
    skipped: tuple[str, ...]
    size: int


def read_tree(path: Path) -> Tree:
    """Read a checkpoint without its tensors' bytes.

    Args:
        path: Of a file that exists and is not empty.

    Raises:
        UnreadableError: Damaged, of another kind, beyond the limits, or holding what could run code.
        OSError: The system does not give the file.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    suffix = path.suffix.lower()
    if suffix == ".safetensors" and head[8:9] == b"{":
        return Tree(read_safetensors(path), (), size)
    check_head(head)
    if suffix == ".onnx":
        return Tree(read_onnx(path), (), size)
    if head.startswith(b"PK"):
        return Tree(*_with_skipped(read_zip(path)))
    if suffix == ".safetensors" or _is_safetensors(head, size):
        return Tree(read_safetensors(path), (), size)
    return Tree(*_with_skipped(read_stream(path) if head.startswith(MAGIC) else _read_pickle(path, head)))


def _with_skipped(read: tuple[object, Names, int]) -> tuple[object, tuple[str, ...], int]:
    root, names, size = read
    return root, names.skipped, size


def _is_safetensors(head: bytes, size: int) -> bool:
    """Check whether a file of another name starts as a safetensors file does."""
    return head[8:10] == b'{"' and 2 <= int.from_bytes(head[:8], "little") <= size - 8


def _read_pickle(path: Path, head: bytes) -> tuple[object, Names, int]:
    """Read a plain pickle, as Paddle writes them."""
    size, names = path.stat().st_size, Names()
    try:
        with path.open("rb") as file:
            return Machine(Stream(file, size), names).load(), names, size
    except UnreadableError as error:
        if looks_like_text(head) and "could run code" not in error.reason:
            raise UnreadableError("is a text and not a weights file", "download or copy it again") from error
        raise
