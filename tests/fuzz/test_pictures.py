"""Pictures made to hurt: whatever a file holds, it becomes a picture of the size it was measured at, or one sentence.

The files are read in a child process, so that a crash of a decoder is a failure and not the end of the tests; the child
prints what it is about to read, and standard error must stay empty.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS, BYTES, LETTERS = 3.0, 1 << 30, 600
EDGES = (0, 1, 2, 7, 0x7F, 0xFF, 0x100, 0x3FFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


# --- pictures ----------------------------------------------------------------------------------------------------


def _pixels(size: tuple[int, int], seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.5), np.uint8)


def whole_pictures() -> list[tuple[str, bytes]]:
    """Every format that can be written here, small."""
    from PIL import Image

    image = _pixels((64, 80))
    deep = image.astype(np.uint16) * 257
    found: list[tuple[str, bytes]] = []

    def opencv(suffix: str, array: Any, *options: int) -> None:
        found.append((suffix, np.asarray(cv2.imencode(suffix, array, list(options))[1]).tobytes()))

    def pillow(kind: str, mode: str = "RGB", **options: Any) -> None:
        stream = io.BytesIO()
        Image.fromarray(image).convert(mode).save(stream, kind, **options)
        found.append((f"{kind}/{mode}", stream.getvalue()))

    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tiff", ".jp2", ".ppm", ".pam", ".sr", ".gif", ".hdr", ".avif"):
        if cv2.haveImageWriter(suffix):
            opencv(suffix, image)
    for suffix in (".png", ".tiff", ".ppm", ".jp2"):
        opencv(suffix, deep)
    for suffix in (".pgm", ".pbm", ".png", ".jpg"):
        opencv(suffix, image[..., 0])
    opencv(".ppm", image, cv2.IMWRITE_PXM_BINARY, 0)
    opencv(".pfm", image.astype(np.float32))
    opencv(".tiff", image.astype(np.float32))
    opencv(".webp", image, cv2.IMWRITE_WEBP_QUALITY, 70)
    opencv(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    opencv(".jpg", image, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    frames = [Image.fromarray(_pixels((64, 80), seed)) for seed in (1, 2)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        pillow(kind, save_all=True, append_images=frames)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        pillow("TIFF", compression=compression)
    pillow("TIFF", "1", compression="group4")
    pillow("TIFF", big_tiff=True)
    for mode in ("P", "LA", "RGBA", "1"):
        pillow("PNG", mode)
    pillow("JPEG2000", no_jp2=True)
    pillow("JPEG2000", "RGBA", tile_size=(32, 32))
    pillow("BMP", "P")
    return found


# --- damage ------------------------------------------------------------------------------------------------------


def _cut(data: bytes, dice: random.Random, other: bytes) -> bytes:
    return data[: dice.randrange(len(data))]


def _flip(data: bytes, dice: random.Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 3, 20))):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _flip_early(data: bytes, dice: random.Random, other: bytes) -> bytes:
    return _flip(data[:200], dice, other) + data[200:]


def _lie(data: bytes, dice: random.Random, other: bytes) -> bytes:
    """Overwrite numbers near the start (or the end, where a TIFF has its directory)."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        layout = dice.choice(("<H", ">H", "<I", ">I", "B"))
        value = dice.choice(EDGES) & ((1 << 8 * struct.calcsize(layout)) - 1)
        at = dice.randrange(min(len(data), 300)) * dice.choice((1, 1, -1))
        if 0 <= at % len(data) <= len(data) - 4:
            struct.pack_into(layout, changed, at % len(data), value)
    return bytes(changed)


def _splice(data: bytes, dice: random.Random, other: bytes) -> bytes:
    return data[: dice.randrange(len(data))] + other[dice.randrange(len(other)) :]


def _repeat(data: bytes, dice: random.Random, other: bytes) -> bytes:
    start = dice.randrange(len(data))
    part = data[start : start + dice.choice((4, 30, 400))]
    return data[:start] + part * dice.choice((2, 5, 100)) + data[start + len(part) :]


def _checksummed(data: bytes) -> bytes:
    """Give a PNG's chunks right checksums again, so that damage gets past them."""
    if not data.startswith(b"\x89PNG"):
        return data
    found, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunk = data[at : at + 8 + length]
        found.append(chunk + struct.pack(">I", zlib.crc32(chunk[4:])))
        at += 12 + length
    return b"".join(found) + data[at:]


_DAMAGE: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (_cut, _flip, _flip_early, _lie, _splice, _repeat)


def inputs(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """What to read: the same for the same seed; the bombs first."""
    yield from list(bombs())[:count]
    dice, pictures = random.Random(seed), whole_pictures()
    for _ in range(count):
        (name, data), (_, other) = dice.choice(pictures), dice.choice(pictures)
        damage = dice.choice(_DAMAGE)
        data = damage(data, dice, other)
        if dice.random() < 0.2 and data:
            data = dice.choice(_DAMAGE)(data, dice, other)
        yield f"{name} {damage.__name__}", _checksummed(data) if dice.random() < 0.7 else data


# --- bombs -------------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(height: int, width: int, bits: int, color: int, packed: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _zeros(count: int, first: bytes = b"") -> bytes:
    """A zlib stream of `first` and then zeros; packed by the megabyte, so that gigabytes take no time."""
    packer, blocks = zlib.compressobj(9, wbits=-15), count >> 20
    start = packer.compress(first) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    low, high = zlib.adler32(first) & 0xFFFF, zlib.adler32(first) >> 16
    check = (high + (blocks << 20) * low) % 65521 << 16 | low
    return b"\x78\xda" + start + block * blocks + packer.flush() + struct.pack(">I", check)


def _gif(height: int, width: int, codes: bytes) -> bytes:
    blocks = b"".join(bytes([len(codes[i : i + 255])]) + codes[i : i + 255] for i in range(0, len(codes), 255))
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"\x2c\0\0\0\0" + size + b"\0\x02" + blocks + b"\0;"


def _tiff(*entries: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II\x2a\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4) + tail


def _many_scans(height: int, width: int, scans: int) -> bytes:
    data = np.asarray(
        cv2.imencode(".jpg", np.zeros((height, width), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    ).tobytes()
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that claim, or unpack to, far more than they are."""
    rgb = (256, 4, 1, 20000), (257, 4, 1, 20000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)
    small = (256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)
    nothing = b"\0\0\0\0"
    yield "png of 65535x65535", _png(65535, 65535, 16, 6, nothing)
    yield "png of 16 bits", _png(9999, 9999, 16, 2, nothing)
    yield (
        "png of unpacking text",
        _png(8, 8, 8, 0, zlib.compress(bytes(72)), _chunk(b"zTXt", b"a\0\0" + _zeros(300 << 20))),
    )
    yield "png of too much data", _png(8, 8, 8, 0, _zeros(300 << 20))
    rows = np.random.default_rng(0).integers(0, 256, (1024, 2049), dtype=np.uint8)
    rows[:, 0] = 0
    yield "png of gigabytes after its rows", _png(1024, 2048, 8, 0, _zeros(2 << 30, rows.tobytes()))
    yield "png of zeros", _png(9000, 9000, 8, 0, _zeros(78 << 20))
    yield "gif of 65535x65535", _gif(65535, 65535, b"\x4c\x01")
    yield "gif of clear codes", _gif(4000, 4000, bytes((0x24, 0x49, 0x92)) * 700_000)
    yield "tiff of 20000x20000", _tiff(*rgb)
    yield "tiff of 64 bits", _tiff(*rgb[:2], (258, 3, 1, 64), *rgb[3:])
    yield "tiff of 65535 channels", _tiff(*small[:5], (277, 3, 1, 65535))
    yield "tiff of tiles", _tiff(*small, (322, 4, 1, 65536), (323, 4, 1, 65536), (324, 4, 1, 8), (325, 4, 1, 8))
    yield "tiff of endless strips", _tiff(*small, (273, 4, 0xFFFFFFFF, 8), (279, 4, 0xFFFFFFFF, 8))
    yield (
        "tiff of one strip read often",
        _tiff(
            (256, 4, 1, 1),
            (257, 4, 1, 100_000),
            *small[2:],
            (278, 4, 1, 1),
            (273, 4, 100_000, 200),
            (279, 4, 100_000, 200),
            tail=b"\0\0\x04\0" * 100_100,
        ),
    )
    loop = bytearray(_tiff(*small, (273, 4, 1, 8), (279, 4, 1, 8), tail=bytes(300)))
    loop[8 + 2 + 12 * 8 : 8 + 2 + 12 * 8 + 4] = struct.pack("<I", 8)
    yield "tiff that loops", bytes(loop)
    yield "tiff of many entries", b"MM\0\x2b\0\x08\0\0" + struct.pack(">QQ", 16, 1 << 62) + bytes(64)
    yield "jpeg of 65500x65500", _many_scans(16, 16, 1).replace(b"\x08\x00\x10\x00\x10", b"\x08\xff\xdc\xff\xdc")
    yield "jpeg of scans", _many_scans(6000, 6000, 3000)
    yield "jpeg of scans below the budget", _many_scans(2000, 2000, 110)
    yield "jpeg of segments", b"\xff\xd8" + b"\xff\xe5\x00\x02" * 1_000_000 + _many_scans(16, 16, 1)[2:]
    lossless = np.asarray(cv2.imencode(".webp", np.zeros((9000, 9000, 3), np.uint8))[1]).tobytes()
    yield "webp of zeros", lossless
    canvas = b"\x02\0\0\0" + b"\xfe\x3f\0" * 2
    yield "webp of a large canvas", b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X\x0a\0\0\0" + canvas + bytes(18)
    yield "bmp of 40000x40000", b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 40000, -40000, 1, 24, 0) + bytes(99)
    yield "bmp of runs", b"BM" + bytes(8) + struct.pack("<IIiiHHI", 1078, 40, 9000, 9000, 1, 8, 1) + bytes(1200)
    yield "pgm of text", b"P2 30000 30000 255 1 2 3"
    yield "pam of channels", b"P7\nWIDTH 9\nHEIGHT 9\nDEPTH 1\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(99)
    yield "sun raster", b"\x59\xa6\x6a\x95" + struct.pack(">7I", 60000, 60000, 24, 0, 1, 0, 0)
    size = struct.pack(">HHIIIIIIIIH", 41, 0, 9000, 9000, 0, 0, 2, 2, 0, 0, 1) + b"\x07\x01\x01"
    yield "jpeg 2000 of tiles", b"\xff\x4f\xff\x51" + size + bytes(99)
    size = struct.pack(">HHIIIIIIIIH", 41, 0, 9000, 9000, 0, 0, 9000, 9000, 0, 0, 1) + b"\x07\x01\x01"
    coding = b"\xff\x52\x00\x12\x01\x00\x00\x01\x00\x05\x04\x04\x00\x01" + b"\x11" * 6
    yield "jpeg 2000 of precincts", b"\xff\x4f\xff\x51" + size + coding + bytes(99)


# --- the child ---------------------------------------------------------------------------------------------------


def _outcome(file: Path, data: bytes) -> str:
    """What reading did, or what was wrong with it."""
    from edgeseg.decoding.headers import measure
    from edgeseg.errors import InputError
    from edgeseg.images import read_image

    file.write_bytes(data)
    before, start, decoded = _peak(), time.perf_counter(), 0
    try:
        image = read_image(file)
    except InputError as error:
        text = str(error)
        told = "refused" if "\n" not in text and 0 < len(text) < LETTERS else f"unclear: {text!r}"
    else:
        header, decoded = measure(data), image.nbytes
        sizes = (header.height, header.width), (header.width, header.height)
        told = "read" if image.dtype == np.uint8 and image.shape[:2] in sizes else f"wrong: {image.dtype} {image.shape}"
        told = told if image.ndim == 3 and image.shape[2] == 3 else f"wrong: {image.shape}"
    spent, grown = time.perf_counter() - start, _peak() - before - decoded
    if spent > SECONDS or grown > BYTES:
        return f"costly: {spent:.1f} s and {grown >> 20} MB, {told}"
    return told


def _peak() -> int:
    """Most bytes this process ever held; what getrusage gives counts the parent before the start, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _child(seed: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, data) in enumerate(inputs(seed, count)):
            print(json.dumps([index, name]), flush=True)
            print(json.dumps(_outcome(Path(folder) / "picture", data)), flush=True)


def _run(seed: int, count: int) -> dict[str, int]:
    """Read `count` inputs and the bombs in a child; how often each outcome was."""
    words = [sys.executable, "-m", "tests.fuzz.test_pictures", str(seed), str(count)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"seed {seed}: the decoder died ({done.returncode}) on {lines[-1:]}; {done.stderr}"
    assert done.stderr == ""
    named = zip(lines[::2], lines[1::2], strict=True)
    assert [(name, told) for name, told in named if told not in ("read", "refused")] == []
    return {told: lines[1::2].count(told) for told in ("read", "refused")}


pytestmark = pytest.mark.skipif(os.name != "posix", reason="memory limits are POSIX")


def test_a_few_hundred_bad_pictures() -> None:
    counts = _run(seed=0, count=300)
    assert sum(counts.values()) > 300
    assert min(counts.values()) > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_thousands_of_bad_pictures(seed: int) -> None:
    assert sum(_run(seed, count=500).values()) > 500


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]))
