"""The text that the export left in a graph's metadata, read without the engine's own packages.

An ONNX file is a protobuf message. Its outermost fields are walked over; the weights are skipped, not read. OpenVINO
copies the metadata of the ONNX graph it converts into the ``rt_info`` at the end of its XML. ncnn's graphs have no
metadata: the name of their input layer, which is free, is a hash of the text.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import unescape

__all__ = ["METADATA_KEY", "belongs_to", "layer_name", "read_metadata"]

METADATA_KEY = "edgeseg"
"""Key of the manifest's contract among a graph's metadata."""

_METADATA_PROPS = 14  # field of ModelProto (onnx.proto)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf
_LONGEST = 16 << 20
_LONGEST_LAYER = 4096
_MOST_FIELDS = 100_000
_XML_ENTITIES = {"&quot;": '"', "&apos;": "'", "&#xA;": "\n", "&#10;": "\n", "&#x9;": "\t", "&#9;": "\t"}


def belongs_to(file: Path, contract: str) -> bool:
    """Tell whether a graph was exported with a manifest's contract; any other file belongs to all.

    Raises:
        OSError: The file cannot be read.

    Example:
        >>> belongs_to(bundle.file("model.onnx"), bundle.manifest.contract())
        True
    """
    if file.suffix == ".param":
        with file.open("rb") as stream:
            words = stream.read(_LONGEST_LAYER).split(b"\n")[2:3]
        return layer_name(contract).encode() in b"".join(words).split()[1:2]
    return file.suffix not in (".onnx", ".xml") or read_metadata(file) == contract


def layer_name(contract: str) -> str:
    """Name the input layer of an ncnn graph after a manifest's contract."""
    return f"{METADATA_KEY}-{hashlib.sha256(contract.encode()).hexdigest()}"


def read_metadata(file: Path) -> str | None:
    """Read the text that the export wrote into a graph's metadata.

    Args:
        file: ``.onnx``, or OpenVINO's ``.xml``.

    Returns:
        The text; None where the graph has none, or the file is no graph.

    Raises:
        OSError: The file cannot be read.

    Example:
        >>> read_metadata(bundle.file("model.onnx")) == bundle.manifest.contract()
        True
    """
    return _from_xml(file) if file.suffix == ".xml" else _from_onnx(file)


def _from_xml(file: Path) -> str | None:
    text = file.read_bytes()
    mark = f'<{METADATA_KEY} value="'.encode()
    start = text.find(mark, max(0, text.rfind(b"</edges>")))
    end = text.find(b'"', start + len(mark))
    if start < 0 or end < 0 or end - start > _LONGEST:
        return None
    return unescape(text[start + len(mark) : end].decode("utf-8", "replace"), _XML_ENTITIES)


def _from_onnx(file: Path) -> str | None:
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            for _ in range(_MOST_FIELDS):
                if stream.tell() >= size:
                    break
                field, wire = divmod(_varint(stream), 8)
                length = _length(stream, wire)
                end = stream.tell() + length
                if end > size:
                    return None
                if field == _METADATA_PROPS and length <= _LONGEST:
                    key, value = _entry(stream.read(length))
                    if key == METADATA_KEY:
                        return value
                stream.seek(end)
        except (EOFError, ValueError):
            return None
    return None


def _length(stream: BinaryIO, wire: int) -> int:
    """Count the bytes of a field's value that follow."""
    if wire == _VARINT:
        _varint(stream)
        return 0
    if wire == _BYTES:
        return _varint(stream)
    if wire in (_FIXED64, _FIXED32):
        return 8 if wire == _FIXED64 else 4
    raise ValueError(f"wire type {wire}")


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than 64 bits")


def _entry(data: bytes) -> tuple[str, str]:
    """Read key and value of a StringStringEntryProto."""
    stream, texts = io.BytesIO(data), {1: "", 2: ""}
    while stream.tell() < len(data):
        field, wire = divmod(_varint(stream), 8)
        texts[field] = stream.read(_length(stream, wire)).decode("utf-8", "replace")
    return texts[1], texts[2]
