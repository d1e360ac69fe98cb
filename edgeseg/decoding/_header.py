"""The header of a picture, and words for what is wrong with it, for every reader of headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["DAMAGED", "ENDS_EARLY", "HeaderError", "PictureHeader", "check_length", "unpack"]

ENDS_EARLY = "ends early (cut off while copying or still being written); get it whole"
DAMAGED = "is damaged; get it whole, or save it again"


class HeaderError(Exception):
    """An unusable header. The text continues a sentence that begins with the picture's name."""


@dataclass(frozen=True)
class PictureHeader:
    """What a file says about its first picture.

    Attributes:
        format: Name of the format, such as ``PNG``.
        height: Rows as stored, before any EXIF orientation.
        width: Columns as stored.
        channels: Channels as stored; a colour table counts as 3.
        bits: Bits per channel as stored; a colour table counts as 8. An AVIF's channels count as 4 at worst.
        decoder_bytes: Bytes per pixel that a decoder uses at worst beside the picture it gives, and more where it is
            slow.
        animated: Whether more pictures follow; they are not decoded.
        scans: Passes over one channel each, of which a progressive JPEG has about a dozen; else 1.
        orientation: EXIF orientation 1..8 of a JPEG or TIFF, or what an AVIF's rotation and mirror come to; else 1,
            since decoders apply that of other formats.
        largest: Value of white as decoded, where it is neither 255 (of uint8) nor 65535 (of uint16); else 0.
        inverted: Whether the decoder gives black as white.
        more_bands: Whether there is a channel beside gray or RGB that is not said to be alpha; it is not decoded.
    """

    format: str
    height: int
    width: int
    channels: int = 3
    bits: int = 8
    decoder_bytes: int = 4
    animated: bool = False
    scans: int = 1
    orientation: int = 1
    largest: int = 0
    inverted: bool = False
    more_bands: bool = False

    @property
    def pixels(self) -> int:
        """Height x width."""
        return self.height * self.width


def unpack(layout: str, data: bytes, at: int) -> tuple[Any, ...]:
    """Unpack values from `data` at byte `at`, as `struct.unpack_from` does.

    Raises:
        HeaderError: The data ends too early.
    """
    if at < 0 or at + struct.calcsize(layout) > len(data):
        raise HeaderError(ENDS_EARLY)
    return struct.unpack_from(layout, data, at)


def check_length(data: bytes, start: int, height: int, row: int) -> None:
    """Check that `height` rows of `row` bytes from byte `start` are there.

    Raises:
        HeaderError: The data ends before.
    """
    if start + height * row > len(data):
        raise HeaderError(ENDS_EARLY)
