"""What a file is, told by its first bytes: a picture of a format that is read, one that is not, a film, or neither."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["HEAD_BYTES", "Signature", "recognise"]

HEAD_BYTES = 512
"""Bytes of a file's beginning that `recognise` looks at."""


@dataclass(frozen=True)
class Signature:
    """What a file claims to be.

    Attributes:
        format: Name of the format, such as ``PNG``.
        film: Whether it is a video.
        refused: Why the format is never read, as the continuation of a sentence; empty where it is.
    """

    format: str
    film: bool = False
    refused: str = ""


def recognise(head: bytes) -> Signature | None:
    """Tell what a file is.

    Args:
        head: Its first `HEAD_BYTES` bytes, or all of them where there are fewer; more do no harm.

    Returns:
        The format; None where the bytes begin no picture and no video that is known here.

    Example:
        >>> recognise(bundle.read("sample.png")).format
        'PNG'
        >>> recognise(b"notes about the pictures") is None
        True
    """
    for fits, signature in _SIGNATURES:
        if fits(head):
            return signature
    return _in_boxes(head)


def _in_boxes(head: bytes) -> Signature | None:
    """Tell the formats of ISO's boxes by their brands; QuickTime's oldest films have no brand."""
    kind = head[4:8]
    if kind == b"mdat" or (kind in (b"moov", b"wide", b"pnot", b"free", b"skip") and head[:1] == b"\0"):
        return _FILM
    if kind != b"ftyp":
        return None
    size = min(max(int.from_bytes(head[:4], "big"), 12), len(head))
    brands = {head[at : at + 4] for at in (8, *range(16, size, 4))}
    if brands & _AVIF_BRANDS:
        return Signature("AVIF")
    if head[8:12] in _HEIF_BRANDS or (head[8:12] in (b"mif1", b"msf1") and brands & _HEIF_BRANDS):
        return Signature("HEIC")
    if head[8:12] in (b"mif1", b"msf1"):
        return _unread("a HEIF picture of an unknown codec")
    if head[8:12] in (b"M4A ", b"M4B ", b"M4P "):
        return None  # sound alone
    return _unread(_RAW) if head[8:12] == b"crx " else _FILM


def _unread(what: str) -> Signature:
    return Signature("", refused=f"is {what}, which edgeseg does not read; save it again as PNG or JPEG")


def _starts(*words: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(words)


def _riff(word: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == word


def _matches(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda head: compiled.match(head[:HEAD_BYTES]) is not None


def _repeats(at: int, step: int) -> Callable[[bytes], bool]:
    """Tell the packets of an MPEG transport stream, each of which begins with 0x47."""
    return lambda head: [head[place : place + 1] for place in (at, at + step, at + 2 * step)] == [b"\x47"] * 3


_RAW = "the raw photograph of a camera"
_FILM = Signature("video", film=True)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_FLOATS = "holds float32 values; scale it to uint8 0..255 first"

_SIGNATURES: tuple[tuple[Callable[[bytes], bool], Signature], ...] = (
    (_starts(b"\xff\xd8\xff"), Signature("JPEG")),
    (_starts(b"\x89PNG\r\n\x1a\n"), Signature("PNG")),
    (_riff(b"WEBP"), Signature("WebP")),
    (_starts(b"GIF87a", b"GIF89a"), Signature("GIF")),
    (_matches(rb"(?:II\x2a\0|MM\0\x2a)....CR\x02"), _unread(_RAW)),
    (_starts(b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM"), _unread(_RAW)),
    (_starts(b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"), Signature("TIFF")),
    (_starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), Signature("JPEG 2000")),
    (_matches(rb"P[1-6](?:\s|#[^\n]*\n)+\d"), Signature("PNM")),
    (_starts(b"P7\n", b"P7\r"), Signature("PAM")),
    (_starts(b"\x59\xa6\x6a\x95"), Signature("Sun raster")),
    (_matches(rb"BM.{4}.{4}.{3}\0[\x0c-\xff]\0\0\0"), Signature("BMP")),
    (_starts(b"#?RGBE", b"#?RADIANCE"), Signature("HDR", refused=_FLOATS)),
    (_matches(rb"P[Ff][\n\r ]"), Signature("PFM", refused=_FLOATS)),
    (_starts(b"\x76\x2f\x31\x01"), Signature("OpenEXR", refused=_FLOATS)),
    (_starts(b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"), _unread("a JPEG XL picture")),
    (_starts(b"8BPS"), _unread("a Photoshop document")),
    (_matches(rb"\0\0[\x01\x02]\0[\x01-\xff]\0.{2}[\x00-\xff]\0[\x00\x01]\0"), _unread("an icon (ICO)")),
    (_matches(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml.{0,400})?(?:<!--.{0,400})?<svg[\s>]"), _unread("a drawing (SVG)")),
    (_starts(b"DDS "), _unread("a DirectDraw surface (DDS)")),
    (_starts(b"qoif"), _unread("a QOI picture")),
    (_starts(b"BPG\xfb"), _unread("a BPG picture")),
    (_starts(b"gimp xcf"), _unread("a document of GIMP")),
    (_starts(b"SIMPLE  ="), _unread("a FITS picture")),
    (_starts(b"\xd7\xcd\xc6\x9a", b"\x01\0\0\0\x6c\0\0\0"), _unread("a Windows metafile")),
    (_matches(rb"\x0a[\x00-\x05]\x01[\x01\x02\x04\x08]"), _unread("a PCX picture")),
    (_matches(rb"\x01\xda[\x00\x01][\x01\x02]\0[\x01-\x03]"), _unread("an SGI picture")),
    (_riff(b"AVI "), _FILM),
    (_starts(b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\x01\xba"), _FILM),
    (_starts(b"OggS", b"YUV4MPEG2", b"DKIF\0\0", b"\0\0\x01\xb3"), _FILM),
    (_repeats(0, 188), _FILM),
    (_repeats(4, 192), _FILM),
)
