"""GIF: its canvas, where its first picture ends, and codes that only an attack would contain."""

from __future__ import annotations

from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError, PictureHeader, unpack

__all__ = ["first_picture", "measure"]

_CODES_UNREAD = 200_000
_MOST_CLEARS = 300_000


def measure(data: bytes) -> PictureHeader:
    """Measure the canvas; the first picture must lie in it.

    Raises:
        HeaderError: Damaged, cut short, or made of codes that take a decoder very long.
    """
    width, height = unpack("<HH", data, 6)
    descriptor, codes, end = _first(data)
    left, top, wide, high = unpack("<HHHH", data, descriptor + 1)
    if not (wide and high and left + wide <= width and top + high <= height):
        raise HeaderError(DAMAGED)
    if end - codes > _CODES_UNREAD:
        _check_codes(data, codes, wide * high)
    return PictureHeader("GIF", height, width, 3, 8, 8, data[end : end + 1] in (b"\x21", b"\x2c"))


def first_picture(data: bytes) -> bytes:
    """Cut the file after its first picture."""
    return data[: _first(data)[2]] + b"\x3b"


def _first(data: bytes) -> tuple[int, int, int]:
    """Find where the first picture's descriptor, its codes, and the data after it begin."""
    (flags,) = unpack("B", data, 10)
    at = 13 + _table(flags)
    while True:
        (kind,) = unpack("B", data, at)
        if kind == 0x21:
            at = _after_blocks(data, at + 2)
        elif kind == 0x2C:
            break
        else:
            raise HeaderError(DAMAGED)
    (flags,) = unpack("B", data, at + 9)
    codes = at + 10 + _table(flags)
    return at, codes, _after_blocks(data, codes + 1)


def _table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    while at < len(data):
        length = data[at]
        at += 1 + length
        if not length:
            return at
    raise HeaderError(ENDS_EARLY)


def _check_codes(data: bytes, at: int, pixels: int) -> None:
    """Count how often the code table is cleared. OpenCV is slow at that, and a bit or two asks for it."""
    (least,) = unpack("B", data, at)
    if not 2 <= least <= 11:
        raise HeaderError(DAMAGED)
    clear, size, table = 1 << least, least + 1, (1 << least) + 1
    bits = waiting = clears = given = 0
    for byte in _blocks(data, at + 1):
        bits |= byte << waiting
        waiting += 8
        while waiting >= size:
            code = bits & ((1 << size) - 1)
            bits >>= size
            waiting -= size
            if code in (clear, clear + 1):
                clears += 1
                size, table = least + 1, clear + 1
                continue
            given += 1
            table += table < 4096
            size += table == 1 << size and size < 12
        if clears > _MOST_CLEARS:
            raise HeaderError(f"is a GIF that clears its codes more than {_MOST_CLEARS} times; save it again as PNG")
        if given > pixels:
            return


def _blocks(data: bytes, at: int) -> bytes:
    codes = bytearray()
    while length := data[at]:
        codes += data[at + 1 : at + 1 + length]
        at += 1 + length
    return bytes(codes)
