"""JPEG 2000 and AVIF: pictures in boxes. The coded picture inside is measured, not only what the boxes claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgeseg.decoding._header import DAMAGED, ENDS_EARLY, HeaderError, PictureHeader, unpack

__all__ = ["first_picture", "measure_avif", "measure_heic", "measure_jpeg2000"]

_MOST_BOXES = 1000
_MOST_TILES, _MOST_PACKETS = 1 << 14, 1 << 22
_MOST_PARTS = 1 << 17


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and end of each box between two places."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        size, kind = unpack(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = unpack(">Q", data, start)
            start += 8
        stop = at + size if size else end
        if stop < start or stop > end:
            raise HeaderError(ENDS_EARLY if stop > len(data) else DAMAGED)
        yield kind, start, stop
        at = stop
    raise HeaderError(f"holds more than {_MOST_BOXES} boxes; save it again")


# --- JPEG 2000 ---------------------------------------------------------------------------------------------------


def measure_jpeg2000(data: bytes) -> PictureHeader:
    """Measure a JPEG 2000 file (``jp2``) or codestream.

    Raises:
        HeaderError: Damaged, cut short, with a colour table, or of more tiles or packets than a writer makes.
    """
    start = 0 if data.startswith(b"\xff\x4f") else _codestream(data)
    mark, _, _, right, bottom, left, top, *tiles, channels = unpack(">4sHH8IH", data, start)
    if mark != b"\xff\x4f\xff\x51":
        raise HeaderError(DAMAGED)
    if not 1 <= channels <= 4:
        raise HeaderError(f"is a JPEG 2000 of {channels} channels, expected 1 to 4; save it again as PNG")
    parts = unpack(f">{3 * channels}B", data, start + 42)
    depths, steps = parts[::3], parts[1::3] + parts[2::3]
    if left or top or any(step != 1 for step in steps):
        raise HeaderError("is a JPEG 2000 with an offset or smaller colour channels; save it again as PNG")
    if any(depth & 0x80 or not 8 <= depth + 1 <= 16 for depth in depths):
        raise HeaderError("holds JPEG 2000 values other than 8 to 16 bits unsigned; convert it first")
    if len(set(depths)) > 1:
        raise HeaderError("is a JPEG 2000 whose channels have different numbers of bits; save it again as PNG")
    bits = depths[0] + 1
    largest = (1 << bits) - 1 if 8 < bits < 16 else 0
    _check_tiles(right, bottom, *tiles)
    _check_coding(data, start, right, bottom, tiles[0], tiles[1], channels)
    return PictureHeader("JPEG 2000", bottom, right, channels, bits, 4 * channels, largest=largest)


def _codestream(data: bytes) -> int:
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind == b"jp2h":
            _check_colours(data, start, stop)
        if kind == b"jp2c":
            return start
    raise HeaderError(DAMAGED)


def _check_colours(data: bytes, start: int, stop: int) -> None:
    """Refuse colour tables, and colour spaces that OpenCV does not turn into RGB, or only nearly."""
    for kind, at, _ in _boxes(data, start, stop):
        if kind == b"pclr":
            raise HeaderError("is a JPEG 2000 with a colour table; save it again as PNG")
        if kind == b"colr" and data[at] == 1:
            (space,) = unpack(">I", data, at + 3)
            if space == 12:
                raise HeaderError("holds CMYK colours, not RGB; convert it to RGB first")
            if space not in (16, 17):
                name = {14: "CIE Lab", 18: "sYCC"}.get(space, f"colour space {space}")
                raise HeaderError(f"is a JPEG 2000 in {name}, expected gray or RGB; convert it first")


def _check_tiles(width: int, height: int, wide: int, high: int, left: int, top: int) -> None:
    if not wide or not high or left or top:
        raise HeaderError(DAMAGED)
    count = -(-width // wide) * -(-height // high)
    if count > _MOST_TILES:
        raise HeaderError(f"is a JPEG 2000 of {count} tiles, expected at most {_MOST_TILES}; save it again as PNG")


def _check_coding(data: bytes, start: int, width: int, height: int, wide: int, high: int, channels: int) -> None:
    """Check how every header, the main one and those of tile parts, cuts its tiles into blocks and packets."""
    at, tiles, part_end = start + 2, -(-width // wide) * -(-height // high), 0
    wide, high = min(wide, width), min(high, height)
    for _ in range(_MOST_PARTS):
        marker, length = (*unpack(">H", data, at), *(unpack(">H", data, at + 2) if at + 4 <= len(data) else (0,)))
        if marker == 0xFFD9:
            return
        if marker == 0xFF90:
            (size,) = unpack(">I", data, at + 6)
            part_end = at + size if size else 0
        elif marker == 0xFF93:
            if part_end <= at and data.find(b"\xff\xd9", at) >= 0:
                return  # the last part, up to the end
            if part_end <= at or part_end >= len(data):
                raise HeaderError(ENDS_EARLY)
            at = part_end
            continue
        elif marker == 0xFF52:
            style, _, layers, _, levels = unpack(">BBHBB", data, at + 4)
            blocks = unpack(f">BBBB{levels + 1 if style & 1 and levels <= 32 else 0}B", data, at + 10)
            _check_packets(layers * channels * tiles, blocks, levels, wide, high)
        elif marker == 0xFF53:
            wider = channels > 256
            style, levels = unpack(">BB", data, at + 5 + wider)
            blocks = unpack(f">BBBB{levels + 1 if style & 1 and levels <= 32 else 0}B", data, at + 7 + wider)
            _check_packets(channels * tiles, blocks, levels, wide, high)
        if length < 2:
            raise HeaderError(DAMAGED)
        at += 2 + length
    raise HeaderError(f"is a JPEG 2000 of more than {_MOST_PARTS} segments; save it again as PNG")


def _check_packets(share: int, blocks: tuple[int, ...], levels: int, wide: int, high: int) -> None:
    """Refuse more packets (layers x channels x tiles x precincts of every level) than a writer makes."""
    across, down, _, _, *precincts = blocks
    if levels > 32 or across + down + 4 < 8:
        raise HeaderError("is a JPEG 2000 of very small blocks or very many levels; save it again as PNG")
    count = 0
    for level in range(levels + 1):
        step = levels - level
        size = precincts[level] if precincts else 0xFF
        across, down = step + (size & 15), step + (size >> 4)
        count += -(-wide // (1 << across)) * -(-high // (1 << down))
    if share * count > _MOST_PACKETS:
        raise HeaderError(f"is a JPEG 2000 of {share * count} packets, expected at most {_MOST_PACKETS}; use PNG")


# --- AVIF and HEIC -----------------------------------------------------------------------------------------------


@dataclass
class _Items:
    """What the ``meta`` box says about the pictures in the file.

    Attributes:
        primary: Item of the main picture.
        kinds: Item -> kind.
        sizes: Height x width by property, (0, 0) where the property is no size.
        turns: Quarter turns against the clock (``irot``) or -1 - axis of a mirror (``imir``) by property, else None.
        bits: Bits per channel by property, 0 where the property does not say.
        linked: Item -> its properties.
        places: Item -> start and length of its parts; a start inside ``idat`` is stored as -1 - start.
        inside: First byte of ``idat``.
    """

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    turns: list[int | None] = field(default_factory=list)
    bits: list[int] = field(default_factory=list)
    linked: dict[int, list[int]] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    inside: int = 0


def measure_avif(data: bytes) -> PictureHeader:
    """Measure the primary picture of an AVIF, and every picture coded in it.

    Raises:
        HeaderError: Damaged, cut short, a film without a picture of its own, or coded larger than it claims.
    """
    items = _items(data)
    if not items.primary:
        raise HeaderError("is an AVIF film, of which no picture is read; save its first picture as PNG or JPEG")
    height, width = _size(items)
    coded = sum(_coded_pixels(_payload(data, items, item)) for item, kind in items.kinds.items() if kind == b"av01")
    if coded > 4 * height * width + (1 << 20) or not coded:
        raise HeaderError(f"claims {height}x{width}, but {coded} pixels are coded in it; save it again")
    bits = max([items.bits[link] for links in items.linked.values() for link in links], default=0) or 8
    film = data[8:12] == b"avis"
    largest = (1 << bits) - 1 if bits > 8 else 0
    return PictureHeader(
        "AVIF", height, width, 4, bits, 16, film, orientation=_orientation(items, items.primary), largest=largest
    )


def measure_heic(data: bytes) -> PictureHeader | None:
    """Measure the primary picture of a HEIC, and the pictures (such as tiles) in it by what they claim.

    Returns:
        The header; None where the file has no primary picture.

    Raises:
        HeaderError: Damaged, cut short, or of parts larger than it claims.
    """
    items = _items(data)
    if not items.primary:
        return None
    height, width = _size(items)
    coded = sum(high * wide for item in items.kinds for high, wide in _sizes(items, item))
    if coded > 8 * height * width + (1 << 20):
        raise HeaderError(f"claims {height}x{width}, but holds pictures of {coded} pixels; save it again")
    for item in items.kinds:
        _payload(data, items, item)
    return PictureHeader("HEIC", height, width, 4, 8, 16, data[8:12] in (b"hevc", b"hevx", b"msf1"))


def first_picture(data: bytes) -> bytes:
    """Call an AVIF film a picture, so that its primary picture is decoded, which was measured."""
    return data[:8] + b"avif" + data[12:] if data[8:12] == b"avis" else data


def _items(data: bytes) -> _Items:
    items = _Items()
    for kind, start, stop in _boxes(data, 0, len(data)):
        if kind == b"meta":
            _read_meta(data, start + 4, stop, items)
            break
    return items


def _size(items: _Items) -> tuple[int, int]:
    """Height x width of the primary picture as stored."""
    sizes = _sizes(items, items.primary)
    if len(sizes) != 1:
        raise HeaderError(DAMAGED)
    return sizes[0]


def _sizes(items: _Items, item: int) -> list[tuple[int, int]]:
    return [items.sizes[link] for link in items.linked.get(item, []) if items.sizes[link] != (0, 0)]


# EXIF orientation by quarter turns against the clock and, after them, a mirror: none, 0 top to bottom, 1 left to right.
_ORIENTATIONS: dict[tuple[int, int | None], int] = {
    (0, None): 1,
    (1, None): 8,
    (2, None): 3,
    (3, None): 6,
    (0, 0): 4,
    (1, 0): 5,
    (2, 0): 2,
    (3, 0): 7,
    (0, 1): 2,
    (1, 1): 7,
    (2, 1): 4,
    (3, 1): 5,
}


def _orientation(items: _Items, item: int) -> int:
    """Tell the EXIF orientation that an item's turn and mirror come to; they are applied in this order."""
    said = [turn for link in items.linked.get(item, []) if (turn := items.turns[link]) is not None]
    turns = next((turn for turn in said if turn >= 0), 0)
    mirror = next((-1 - turn for turn in said if turn < 0), None)
    return _ORIENTATIONS[turns, mirror]


def _read_meta(data: bytes, start: int, stop: int, items: _Items) -> None:
    for kind, at, end in _boxes(data, start, stop):
        if kind == b"pitm":
            (items.primary,) = unpack(">H" if data[at] == 0 else ">I", data, at + 4)
        elif kind == b"iinf":
            for inner, place, _ in _boxes(data, at + (6 if data[at] == 0 else 8), end):
                if inner == b"infe":
                    number, _, word = unpack(">HH4s" if data[place] == 2 else ">IH4s", data, place + 4)
                    items.kinds[number] = word
        elif kind == b"iprp":
            _read_properties(data, at, end, items)
        elif kind == b"iloc":
            _read_places(data, at, items)
        elif kind == b"idat":
            items.inside = at


def _read_properties(data: bytes, start: int, stop: int, items: _Items) -> None:
    for kind, at, end in _boxes(data, start, stop):
        if kind == b"ipco":
            for inner, place, _ in _boxes(data, at, end):
                width, height = unpack(">II", data, place + 4) if inner == b"ispe" else (0, 0)
                items.sizes.append((height, width))
                turn = data[place] & 3 if inner == b"irot" else -1 - (data[place] & 1) if inner == b"imir" else None
                items.turns.append(turn)
                deep = data[place + 2] if inner == b"av1C" else 0
                items.bits.append(0 if inner != b"av1C" else 12 if deep & 0x20 else 10 if deep & 0x40 else 8)
        elif kind == b"ipma":
            _read_links(data, at, items)
    for links in items.linked.values():
        links[:] = [link for link in links if 0 <= link < len(items.sizes)]


def _read_links(data: bytes, at: int, items: _Items) -> None:
    version, wide, (count,) = data[at], data[at + 3] & 1, unpack(">I", data, at + 4)
    at += 8
    for _ in range(min(count, _MOST_BOXES)):
        number, size = unpack(">HB" if version == 0 else ">IB", data, at)
        at += 3 if version == 0 else 5
        links = unpack(f">{size}{'H' if wide else 'B'}", data, at)
        items.linked[number] = [(link & (0x7FFF if wide else 0x7F)) - 1 for link in links]
        at += size * (2 if wide else 1)


def _read_places(data: bytes, at: int, items: _Items) -> None:
    version, sizes, more = data[at], data[at + 4], data[at + 5]
    widths = {"offset": sizes >> 4, "length": sizes & 15, "base": more >> 4, "index": more & 15 if version else 0}
    (count,) = unpack(">H" if version < 2 else ">I", data, at + 6)
    at += 8 if version < 2 else 10

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise HeaderError(DAMAGED)
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(min(count, _MOST_BOXES)):
        item = number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        number(2)
        base, extents = number(widths["base"]), number(2)
        places = items.places.setdefault(item, [])
        for _ in range(min(extents, _MOST_BOXES)):
            number(widths["index"])
            start, length = base + number(widths["offset"]), number(widths["length"])
            places.append((-1 - start if method else start, length))


def _payload(data: bytes, items: _Items, item: int) -> bytes:
    payload = bytearray()
    for start, length in items.places.get(item, []):
        start = items.inside - 1 - start if start < 0 else start
        if start + length > len(data):
            raise HeaderError(ENDS_EARLY)
        payload += data[start : start + length if length else len(data)]
        if len(payload) > len(data):
            raise HeaderError(DAMAGED)
    return bytes(payload)


def _coded_pixels(stream: bytes) -> int:
    """Find the largest frame size in an AV1 stream of one picture, which may have a few layers but is no film."""
    at, largest, frames = 0, 0, 0
    while at < len(stream):
        head, at = stream[at], at + (2 if stream[at] & 4 else 1)
        size, at = _leb128(stream, at) if head & 2 else (len(stream) - at, at)
        kind = head >> 3 & 15
        frames += kind in (3, 6)
        if kind == 1:
            largest = max(largest, _sequence_pixels(stream[at : at + min(size, 512)]))
        if at + size > len(stream) or frames > 16:
            raise HeaderError(DAMAGED)
        at += size
    return largest


def _leb128(stream: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        if at >= len(stream):
            break
        value |= (stream[at] & 127) << 7 * index
        at += 1
        if not stream[at - 1] & 128:
            return value, at
    raise HeaderError(DAMAGED)


class _Bits:
    """Reads numbers of a given count of bits, one after another."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise HeaderError(DAMAGED)
        return self._value >> self._left & ((1 << count) - 1)

    def skip_uvlc(self) -> None:
        zeros = 0
        while not self.take(1):
            zeros += 1
        self.take(zeros if zeros < 32 else 0)


def _sequence_pixels(header: bytes) -> int:
    """Compute height x width of the largest frame that an AV1 sequence header allows (AV1 specification, 5.5.1)."""
    bits = _Bits(header)
    _, _, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(across) + 1) * (bits.take(down) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            bits.skip_uvlc()
        if bits.take(1):
            delay = bits.take(5) + 1
            bits.take(42)
    display = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if display and bits.take(1):
            bits.take(4)
