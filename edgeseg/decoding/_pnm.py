"""Portable anymaps (PBM, PGM, PPM, PAM): their headers, and the largest value made 255 or 65535.

White is the largest value that the header names. OpenCV scales the values of some of these formats to it and not those
of others, so it gets a header that leaves nothing to scale, and the values are scaled afterwards.
"""

from __future__ import annotations

import re

from edgeseg.decoding._header import DAMAGED, HeaderError, PictureHeader, check_length

__all__ = ["measure", "measure_pam", "whole_range", "whole_range_pam"]

_NUMBER = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})")
_PAM_LINE = re.compile(rb"[ \t\v\f\r\n]*(?:#[^\r\n]*|([A-Z]{1,8})(?:[ \t]+([^\r\n]{0,200}))?)[\r\n]")
_PAM_DEPTHS = {b"BLACKANDWHITE": 1, b"GRAYSCALE": 1, b"GRAYSCALE_ALPHA": 2, b"RGB": 3, b"RGB_ALPHA": 4}


def measure(data: bytes) -> PictureHeader:
    """Measure PBM, PGM and PPM, as text (P1..P3) and as bytes (P4..P6).

    Raises:
        HeaderError: Damaged, cut short, or a largest value outside 1..65535.
    """
    kind, numbers = data[1] - ord("0"), _numbers(data)
    width, height, most = (*(int(match[1]) for match in numbers), 1)[:3]
    if not 1 <= most <= 65535:
        raise HeaderError(f"has a largest value of {most}, expected 1 to 65535; save it again")
    channels, bits = 3 if kind in (3, 6) else 1, 16 if most > 255 else 8
    row = (width + 7) // 8 if kind == 4 else width * channels * (bits // 8 if kind > 4 else 1)
    check_length(data, numbers[-1].end() + 1, height, row)
    return PictureHeader(
        "PNM", height, width, channels, bits, bits // 2, largest=0 if kind in (1, 4) else _largest(most)
    )


def whole_range(data: bytes) -> bytes:
    """Write 255 or 65535 as the largest value of a PGM or PPM that was measured."""
    if data[1] in b"14":
        return data
    start, end = _numbers(data)[-1].span(1)
    return data[:start] + _whole(int(data[start:end])) + data[end:]


def _numbers(data: bytes) -> list[re.Match[bytes]]:
    at, numbers = 2, list[re.Match[bytes]]()
    for _ in range(2 if data[1] in b"14" else 3):
        match = _NUMBER.match(data, at, at + 4096)
        if match is None:
            raise HeaderError(DAMAGED)
        numbers.append(match)
        at = match.end()
    return numbers


def _largest(most: int) -> int:
    return 0 if most in (255, 65535) else most


def _whole(most: int) -> bytes:
    return b"255" if most <= 255 else b"65535"


def measure_pam(data: bytes) -> PictureHeader:
    """Measure PAM; its kind of tuple must agree with its number of channels.

    Raises:
        HeaderError: Damaged, cut short, or of a kind that OpenCV does not read.
    """
    values, end = _pam_values(data)
    try:
        height, width, depth, most = (int(values[key][1]) for key in (b"HEIGHT", b"WIDTH", b"DEPTH", b"MAXVAL"))
    except (KeyError, ValueError):
        raise HeaderError(DAMAGED) from None
    kind = values[b"TUPLTYPE"][1].strip() if b"TUPLTYPE" in values else None
    if not 1 <= most <= 65535 or depth not in ((1, 3) if kind is None else (_PAM_DEPTHS.get(kind),)):
        raise HeaderError(
            f"is a PAM of {depth} channels up to {most} that its kind of tuple does not fit; save it again"
        )
    bits = 16 if most > 255 else 8
    check_length(data, end, height, width * depth * bits // 8)
    return PictureHeader("PAM", height, width, depth, bits, bits, largest=_largest(most))


def whole_range_pam(data: bytes) -> bytes:
    """Write 255 or 65535 as the largest value of a PAM that was measured.

    One of kind RGB becomes a PPM, since OpenCV takes its colours for BGR, as it writes PAMs itself, without a kind.
    """
    values, end = _pam_values(data)
    start, text = values[b"MAXVAL"]
    if b"TUPLTYPE" in values and values[b"TUPLTYPE"][1].strip() == b"RGB":
        size = b"%d %d" % (int(values[b"WIDTH"][1]), int(values[b"HEIGHT"][1]))
        return b"P6\n" + size + b"\n" + _whole(int(text)) + b"\n" + data[end:]
    return data[:start] + _whole(int(text)) + data[start + len(text) :]


def _pam_values(data: bytes) -> tuple[dict[bytes, tuple[int, bytes]], int]:
    """Find the place and text of each value of the header, and where the pixels begin."""
    values: dict[bytes, tuple[int, bytes]] = {}
    at = 3
    while b"ENDHDR" not in values:
        match = _PAM_LINE.match(data, at, at + 4096)
        if match is None or len(values) > 8 or match[1] in values:
            raise HeaderError(DAMAGED)
        at = match.end()
        if match[1]:
            values[match[1]] = (match.start(2), match[2] or b"")
    return values, at
