"""Measure a picture before it is decoded: format, size, channels and bits, from its header alone.

A file of a few kilobytes can claim a picture of gigabytes, and decoders allocate what is claimed. Every format that
OpenCV decodes is measured here. Files are refused that cannot be measured, or that only an attack would contain (a JPEG
2000 of a million tiles, a TIFF whose strips are read a thousand times over). Nothing here allocates more than the file,
and the work is a few steps per block of the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from edgeseg.decoding import _boxes, _gif, _pnm, _tiff
from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError, PictureHeader, check_length, unpack
from edgeseg.decoding._pillow import check_heic_plugin, measured_by_pillow
from edgeseg.decoding.signatures import recognise
from edgeseg.errors import InputError

__all__ = ["LARGEST_SIDE", "PictureHeader", "first_picture", "measure"]

LARGEST_SIDE = 1 << 20
"""Rows or columns above this are refused; OpenCV's own limit."""

_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Inside the coded picture 0xFF is followed by 0x00 (a stuffed byte), D0..D7 (restart) or another FF (filler); 0x01 and
# the restarts have no length where they stand between segments.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SEGMENTS = 100_000


def measure(data: bytes, name: str = "the picture") -> PictureHeader:
    """Read the header of a picture file.

    Args:
        data: The whole file.
        name: What a message calls it.

    Returns:
        Format, height x width as stored, channels and bits of the first picture.

    Raises:
        InputError: Of no format that is measured here, damaged, cut short, with a side of 0 or above `LARGEST_SIDE`,
            or of a kind that never becomes uint8 RGB (floats, CMYK, signed numbers).

    Example:
        >>> header = measure(bundle.read("sample.png"))
        >>> header.format, header.height, header.width, header.channels
        ('PNG', 44, 52, 3)
    """
    found = recognise(data)
    if found is None:
        raise InputError(
            f"{name} cannot be read as a picture: it is of no format that OpenCV reads, or damaged; use PNG or JPEG"
        )
    if found.film:
        raise InputError(f"{name} is a video, not a picture; give it by itself")
    if found.refused:
        raise InputError(f"{name} {found.refused}")
    try:
        return _checked(_READERS[found.format](data))
    except HeaderError as error:
        raise InputError(f"{name} {error}") from error
    except (IndexError, KeyError, ValueError, OverflowError, RecursionError, struct.error) as error:
        raise InputError(f"{name} {DAMAGED}") from error


def first_picture(data: bytes, header: PictureHeader) -> bytes:
    """Make a file of the first picture alone, in the form whose pixels OpenCV gives as they are stored.

    A decoder would go through the other pictures too. OpenCV multiplies the colours of some TIFFs by their alpha, and
    scales the values of some portable anymaps and not those of others.

    Args:
        data: A file that was measured.
        header: Its header, from `measure`.
    """
    cut = _FIRST.get(header.format)
    return data if cut is None else cut(data)


def _checked(header: PictureHeader) -> PictureHeader:
    if header.height < 1 or header.width < 1:
        raise HeaderError(f"is {header.height}x{header.width} and has no pixels; get it whole, or save it again")
    if max(header.height, header.width) > LARGEST_SIDE:
        raise HeaderError(
            f"is {header.height}x{header.width}, and a side is above {LARGEST_SIDE} pixels; make it smaller first"
        )
    return header


# --- PNG and JPEG ------------------------------------------------------------------------------------------------


def _png(data: bytes) -> PictureHeader:
    """Measure PNG and APNG: IHDR comes first; a whole file ends with IEND."""
    length, kind, width, height, bits, color = unpack(">I4sIIBB", data, 8)
    if kind == b"CgBI":
        raise HeaderError("is a PNG in Apple's own form (CgBI), which OpenCV does not read; save it again as PNG")
    if length != 13 or kind != b"IHDR" or bits not in _PNG_BITS.get(color, ()):
        raise HeaderError(DAMAGED)
    table = color == 3
    channels, decoder_bytes = _PNG_CHANNELS[color], 16 if bits == 16 else 4
    return PictureHeader("PNG", height, width, channels, 8 if table else bits, decoder_bytes, b"acTL" in data[33:4096])


def _jpeg(data: bytes) -> PictureHeader:
    """Measure JPEG: the first frame header has the size; every segment up to the end of the picture is passed."""
    at, scans, orientation, frame = 2, 0, 0, None
    for _ in range(_JPEG_SEGMENTS):
        match = _JPEG_MARKER.search(data, at)
        if match is None:
            raise HeaderError(ENDS_EARLY)
        marker, at = data[match.start() + 1], match.end()
        if marker == 0xD9:
            return _jpeg_header(frame, scans, orientation or 1)
        (length,) = unpack(">H", data, at)
        if marker in _JPEG_FRAMES and frame is None:
            frame = unpack(">BHHB", data, at + 2)
        elif marker == 0xE1 and not orientation and data.startswith(b"Exif\0\0", at + 2):
            orientation = _exif_orientation(data[at + 8 : at + length])
        if marker == 0xDA:
            scans += unpack("B", data, at + 2)[0]
        at += length
    raise HeaderError(f"is a JPEG of more than {_JPEG_SEGMENTS} segments; save it again as PNG or JPEG")


def _jpeg_header(frame: tuple[int, ...] | None, scans: int, orientation: int) -> PictureHeader:
    if frame is None or scans == 0:
        raise HeaderError(DAMAGED)
    bits, height, width, channels = frame
    if channels == 4:
        raise HeaderError("holds CMYK colours, not RGB; convert it to RGB first")
    if channels not in (1, 3):
        raise HeaderError(f"is a JPEG of {channels} channels, expected 1 or 3; save it again as PNG or JPEG")
    if bits != 8:
        raise HeaderError(f"is a JPEG of {bits} bits per channel, expected 8; save it again as PNG")
    return PictureHeader("JPEG", height, width, channels, bits, 2 * channels, scans=scans, orientation=orientation)


def _exif_orientation(exif: bytes) -> int:
    """Read the orientation 1..8 of the first directory as OpenCV does; 1 where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return 1
    mark, start = struct.unpack_from(f"{order}HI", exif, 2)
    if mark != 42 or start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 9), 12):
        tag, *_, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if tag == 0x0112:
            return int(value) if 1 <= value <= 8 else 1
    return 1


# --- WebP, BMP and Sun raster ------------------------------------------------------------------------------------


def _webp(data: bytes) -> PictureHeader:
    """Measure WebP: plain (VP8), lossless (VP8L) and extended (VP8X), which libwebp limits to its canvas."""
    size, _, kind = unpack("<I4s4s", data, 4)
    if len(data) < 8 + size or len(data) < 32:
        raise HeaderError(ENDS_EARLY)
    if kind == b"VP8X":
        flags, *sides = unpack("<B3xHBHB", data, 20)
        width, height = 1 + sides[0] + (sides[1] << 16), 1 + sides[2] + (sides[3] << 16)
        animated = bool(flags & 2)
        return PictureHeader("WebP", height, width, 4 if flags & 16 else 3, 8, 12 if animated else 4, animated)
    if kind == b"VP8L":
        mark, packed = unpack("<BI", data, 20)
        if mark == 0x2F:
            return PictureHeader("WebP", 1 + (packed >> 14 & 0x3FFF), 1 + (packed & 0x3FFF), 4, 8, 4)
    if kind == b"VP8 ":
        start, width, height = unpack("<3sHH", data, 23)
        if start == b"\x9d\x01\x2a":
            return PictureHeader("WebP", height & 0x3FFF, width & 0x3FFF, 3, 8, 4)
    raise HeaderError(DAMAGED)


_BMP_MASKS = {
    16: ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)),
    32: ((0xFF0000, 0xFF00, 0xFF),),
}


def _bmp(data: bytes) -> PictureHeader:
    """Measure BMP: the header of OS/2 (12 bytes) or any later one (36 bytes and more)."""
    start, size = unpack("<II", data, 10)
    if size == 12:
        width, height, _, bits, packing = *unpack("<HHHH", data, 18), 0
    elif 36 <= size <= 1 << 20:
        width, height, _, bits, packing = unpack("<iiHHI", data, 18)
    else:
        raise HeaderError(DAMAGED)
    height = abs(height)
    if bits not in (1, 4, 8, 16, 24, 32) or packing > 3 or width < 0:
        raise HeaderError(f"is a BMP of {bits} bits packed in way {packing}, which OpenCV does not read; use PNG")
    if size == 40 and packing == 3 and unpack("<III", data, 54) not in _BMP_MASKS.get(bits, ()):
        raise HeaderError("is a BMP whose colours lie in unusual bits, which OpenCV does not read; use PNG")
    if packing in (0, 3):
        check_length(data, start, height, (width * bits + 31) // 32 * 4)
    return PictureHeader("BMP", height, width, 3, 8)


def _sun(data: bytes) -> PictureHeader:
    """Measure uncompressed Sun raster."""
    width, height, bits, _, packing, mapped, length = unpack(">7I", data, 4)
    if bits not in (1, 8, 24, 32) or packing > 1 or mapped > 1 or length > 768:
        raise HeaderError("is a Sun raster of a kind that OpenCV does not read; use PNG or JPEG")
    check_length(data, 32 + length, height, ((width * bits + 7) // 8 + 1) // 2 * 2)
    return PictureHeader("Sun raster", height, width, 3, 8)


def _heic(data: bytes) -> PictureHeader:
    """Measure HEIC by its boxes; one without a picture of its own, such as a film, by what Pillow says."""
    check_heic_plugin()
    return _boxes.measure_heic(data) or measured_by_pillow(data, "HEIC")


_READERS: dict[str, Callable[[bytes], PictureHeader]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "GIF": _gif.measure,
    "BMP": _bmp,
    "TIFF": _tiff.measure,
    "JPEG 2000": _boxes.measure_jpeg2000,
    "PNM": _pnm.measure,
    "PAM": _pnm.measure_pam,
    "Sun raster": _sun,
    "AVIF": _boxes.measure_avif,
    "HEIC": _heic,
}

_FIRST: dict[str, Callable[[bytes], bytes]] = {
    "GIF": _gif.first_picture,
    "TIFF": _tiff.first_picture,
    "AVIF": _boxes.first_picture,
    "PNM": _pnm.whole_range,
    "PAM": _pnm.whole_range_pam,
}
