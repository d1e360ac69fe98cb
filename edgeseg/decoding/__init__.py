"""Decode a picture file in memory: it is measured first, its damage is described, and an error is one sentence.

JPEG is decoded by libjpeg-turbo through simplejpeg, which distinguishes libjpeg's warnings from success. Its pixels are
those of OpenCV, bit for bit. The JPEGs it does not take (unusual subsampling, lossless) and all other formats are
decoded by OpenCV; HEIC, and AVIF and GIF where OpenCV was built without them, by Pillow. Values of fewer bits than
their type has are scaled to the whole of it. What a file claims to be, `signatures` tells by its first bytes.

Damage is described where the file or its decoder shows it: JPEG by libjpeg's warnings, PNG by the checksum of every
chunk. The other formats have no checksum. A flipped bit in them, or one that a JPEG's codes happen to allow, is just
another picture.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.decoding._header import DAMAGED, HeaderError, PictureHeader
from edgeseg.decoding._hush import hushed
from edgeseg.decoding._pillow import BY_PILLOW, by_pillow
from edgeseg.decoding._png import plain_png
from edgeseg.decoding.headers import first_picture, measure
from edgeseg.errors import InputError
from edgeseg.text import first_line, one_line

__all__ = ["DECODER_BYTES", "MAX_PIXELS", "MOST_SCANNED", "Decoded", "decode"]

MAX_PIXELS = 100_000_000
"""Pictures above so many pixels (height x width) are refused unless the caller allows more."""

DECODER_BYTES = 8
"""Bytes per allowed pixel that a decoder may use beside the picture it gives."""

MOST_SCANNED = 500_000_000
"""Pixels x scans of one channel above which a JPEG of more scans than `_ORDINARY_SCANS` is refused."""

_ORDINARY_SCANS = 24

_one_fallback = threading.Lock()


@dataclass(frozen=True)
class Decoded:
    """A picture and the damage of its file.

    Attributes:
        image: (H, W, 3) RGB of uint8 or uint16, or the channels and order that OpenCV gives where the picture was asked
            for as stored.
        damaged: Sentences on damage that the decoder got over; empty where none was recognised.
        notes: Sentences on what else the file holds and was left out, such as later pages.
    """

    image: NDArray[Any]
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decode(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, strict: bool = False, stored: bool = False
) -> Decoded:
    """Decode the first picture of a file.

    Args:
        data: The whole file.
        name: What a message calls it.
        max_pixels: Largest height x width; the decoder may use 8 bytes of memory for each of them.
        strict: Refuse a damaged picture instead of describing the damage.
        stored: Keep the channels as stored and ignore the EXIF orientation; for label maps.

    Returns:
        The picture, rotated as its EXIF orientation says, and its damage.

    Raises:
        InputError: Not a picture, too large, cut short, or damaged beyond decoding; with `strict` damaged at all.

    Example:
        >>> decode(bundle.read("sample.png"), "the sample").image.shape
        (44, 52, 3)
    """
    header = measure(data, name)
    _check_limits(header, name, max_pixels)
    try:
        if header.format == "JPEG" and not stored:
            image, damage = _decode_jpeg(data, header, name)
        else:
            image, damage = _decode_other(data, header, name, stored)
    except InputError:
        raise
    except HeaderError as error:
        raise InputError(f"{name} {error}") from error
    except MemoryError as error:
        raise InputError(f"{name} is {header.height}x{header.width}, and memory ran out; make it smaller") from error
    except Exception as error:  # whatever a decoder raises is this picture's failure alone
        raise InputError(
            f"{name} cannot be decoded ({first_line(error, 120)}); get it whole, or save it again"
        ) from error
    if strict and damage:
        raise InputError(f"{name} is damaged: {damage[0]}")
    return Decoded(image, damage, _left_out(header))


def _left_out(header: PictureHeader) -> tuple[str, ...]:
    parts = "pages" if header.format == "TIFF" else "pictures"
    notes = [f"only the first of its {parts} is taken"] if header.animated else []
    if header.more_bands:
        notes.append("its last channel, which is not said to be alpha, is left out")
    return tuple(notes)


def _check_limits(header: PictureHeader, name: str, max_pixels: int) -> None:
    size = f"{header.height}x{header.width}"
    if header.pixels > max_pixels:
        raise InputError(
            f"{name} is {size}, above {max_pixels} pixels; make it smaller first, or allow more (max_pixels)"
        )
    if header.pixels * header.decoder_bytes > max_pixels * DECODER_BYTES:
        raise InputError(
            f"{name} is {size} and takes {header.decoder_bytes} bytes per pixel to decode as {header.format}, above "
            f"{DECODER_BYTES} for each of {max_pixels} pixels; make it smaller first, or allow more (max_pixels)"
        )
    if header.scans > _ORDINARY_SCANS and header.pixels * header.scans > MOST_SCANNED:
        raise InputError(
            f"{name} is {size} in {header.scans} scans, above {MOST_SCANNED} pixels of all scans; "
            "save it again as an ordinary JPEG"
        )


# --- JPEG --------------------------------------------------------------------------------------------------------


def _decode_jpeg(data: bytes, header: PictureHeader, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Decode with libjpeg-turbo; what simplejpeg does not take, with OpenCV."""
    from simplejpeg import decode_jpeg

    image = np.empty((header.height, header.width, 3), np.uint8)
    notes: tuple[str, ...] = ()
    try:
        decoded = decode_jpeg(data, "RGB", buffer=image)
    except ValueError as warning:
        try:
            decoded = decode_jpeg(data, "RGB", buffer=image, strict=False)
        except ValueError:
            return _decode_other(data, header, name, stored=False)
        notes = (_jpeg_note(str(warning)),)
    if decoded.shape != image.shape:
        raise _other_size(header, name, decoded)
    return _turned(np.asarray(decoded, np.uint8), header.orientation), notes


def _jpeg_note(warning: str) -> str:
    return f"part of the picture is lost or wrong ({one_line(warning, 120)}); get the file again"


def _turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation."""
    turned: NDArray[Any] = cv2.transpose(image) if orientation >= 5 else image
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return cv2.flip(turned, flips[orientation]) if orientation in flips else turned


# --- OpenCV ------------------------------------------------------------------------------------------------------


def _decode_other(data: bytes, header: PictureHeader, name: str, stored: bool) -> tuple[NDArray[Any], tuple[str, ...]]:
    if header.format == "HEIC":
        return by_pillow(data, header), ()
    plain, damage = plain_png(data) if header.format == "PNG" else (first_picture(data, header), ())
    picture, lines = _by_opencv(plain, header, stored)
    if header.format == "JPEG":
        damage = tuple(_jpeg_note(line) for line in lines[:1])
    if picture is None and header.format in BY_PILLOW:
        return by_pillow(data, header), damage
    if picture is None:
        raise InputError(f"{name} cannot be decoded: it {DAMAGED}")
    if picture.shape[:2] not in ((header.height, header.width), (header.width, header.height)):
        raise _other_size(header, name, picture)
    if stored:
        return picture, damage
    picture = _whole_range(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture), header)
    return (_turned(picture, header.orientation) if header.format in ("AVIF", "TIFF") else picture), damage


def _by_opencv(plain: bytes | bytearray, header: PictureHeader, stored: bool) -> tuple[NDArray[Any] | None, list[str]]:
    """Decode to BGR, or as stored; also return the lines that libjpeg printed."""
    flags = cv2.IMREAD_UNCHANGED if stored else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if header.format == "AVIF":
        flags |= cv2.IMREAD_IGNORE_ORIENTATION  # of its EXIF, which the format says to ignore
    file = np.frombuffer(plain, np.uint8)
    if header.format == "JPEG":
        with _one_fallback, hushed() as lines:
            return cv2.imdecode(file, flags), lines
    with hushed():
        return cv2.imdecode(file, flags), []


def _whole_range(picture: NDArray[Any], header: PictureHeader) -> NDArray[Any]:
    """Scale values of fewer bits than their type has, so that white is 255 or 65535, and black 0."""
    full = np.iinfo(picture.dtype).max
    if header.inverted:
        picture = cv2.bitwise_not(picture)
    if not header.largest:
        return picture
    values = np.minimum(np.arange(full + 1, dtype=np.int64), header.largest)
    table = ((2 * values * full + header.largest) // (2 * header.largest)).astype(picture.dtype)
    return np.take(table, picture)


def _other_size(header: PictureHeader, name: str, picture: NDArray[Any]) -> InputError:
    got, said = f"{picture.shape[0]}x{picture.shape[1]}", f"{header.height}x{header.width}"
    return InputError(f"{name} says it is {said} and decodes to {got}; it is damaged, get it whole")
