"""Headers: every format measured as OpenCV decodes it, lies and attacks refused by name."""

from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.decoding.headers import LARGEST_SIDE, first_picture, measure
from edgeseg.errors import InputError

Image = pytest.importorskip("PIL.Image")
SIZE = (67, 83)


def pixels(dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*SIZE, 3)).astype(dtype)


def by_opencv(suffix: str, array: NDArray[Any], *options: int) -> bytes:
    if not cv2.haveImageWriter(suffix):
        pytest.skip(f"this OpenCV writes no {suffix}")
    return np.asarray(cv2.imencode(suffix, array, list(options))[1]).tobytes()


def by_pillow(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels()).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def decoded_size(data: bytes) -> tuple[int, ...]:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    assert found is not None
    return int(found.shape[0]), int(found.shape[1])


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        *((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WebP"), (".bmp", "BMP"), (".tiff", "TIFF"), (".gif", "GIF")),
        *((".jp2", "JPEG 2000"), (".ppm", "PNM"), (".pam", "PAM"), (".sr", "Sun raster"), (".avif", "AVIF")),
    ],
)
def test_formats_that_opencv_writes(suffix: str, name: str) -> None:
    data = by_opencv(suffix, pixels())
    header = measure(data)
    assert header.format == name
    assert (header.height, header.width) == SIZE == decoded_size(data)
    assert not header.animated


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".jp2", ".pam"])
def test_sixteen_bits(suffix: str) -> None:
    header = measure(by_opencv(suffix, pixels(np.uint16)))
    assert (header.height, header.width, header.channels, header.bits) == (*SIZE, 3, 16)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".pgm", []),
        (".pbm", []),
        (".pgm", [cv2.IMWRITE_PXM_BINARY, 0]),
        (".pbm", [cv2.IMWRITE_PXM_BINARY, 0]),
        (".png", [cv2.IMWRITE_PNG_BILEVEL, 1]),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    ],
)
def test_one_channel(suffix: str, options: list[int]) -> None:
    header = measure(by_opencv(suffix, pixels()[..., 0], *options))
    assert (header.height, header.width, header.channels) == (*SIZE, 1)


@pytest.mark.parametrize("quality", [50, 101])
def test_webp_of_both_codecs_and_with_alpha(quality: int) -> None:
    for array in (pixels(), np.dstack((pixels(), pixels()[..., 0]))):
        header = measure(by_opencv(".webp", array, cv2.IMWRITE_WEBP_QUALITY, quality))
        assert (header.height, header.width) == SIZE


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "packbits"},
        {"compression": "jpeg"},
        {"big_tiff": True},
        {"mode": "1", "compression": "group4"},
        {"mode": "P"},
        {"mode": "L"},
        {"mode": "RGBA"},
    ],
)
def test_tiffs(options: dict[str, Any]) -> None:
    data = by_pillow("TIFF", **options)
    header = measure(data)
    assert (header.height, header.width) == SIZE == decoded_size(data)


def test_a_big_endian_tiff() -> None:
    Image.init()
    stream = io.BytesIO()
    Image.fromarray(pixels(np.uint16)[..., 0].astype(">u2")).save(stream, "TIFF")
    assert stream.getvalue()[:2] == b"MM"
    header = measure(stream.getvalue())
    assert (header.height, header.width, header.bits) == (*SIZE, 16)


def test_files_of_several_pictures() -> None:
    more = [Image.fromarray(255 - pixels())]
    for kind in ("PNG", "GIF", "WEBP", "TIFF"):
        data = by_pillow(kind, save_all=True, append_images=more)
        header = measure(data)
        assert header.animated
        assert (header.height, header.width) == SIZE
        if kind in ("GIF", "TIFF"):
            assert not measure(first_picture(data, header)).animated


@pytest.mark.parametrize("size", [12, 40, 108, 124])
@pytest.mark.parametrize("upside", [1, -1])
def test_bmp_of_every_header(size: int, upside: int) -> None:
    if size == 12:
        head = struct.pack("<IHHHH", 12, 5, 4, 1, 24)
    else:
        head = struct.pack("<IiiHHI", size, 5, 4 * upside, 1, 24, 0) + bytes(size - 20)
    data = b"BM" + bytes(8) + struct.pack("<I", 14 + size) + head + bytes(4 * 16)
    header = measure(data)
    assert (header.height, header.width) == (4, 5) == decoded_size(data)
    with pytest.raises(InputError, match="ends early"):
        measure(data[:-1])


def test_jpeg_2000_without_boxes() -> None:
    data = by_pillow("JPEG2000", no_jp2=True, tile_size=(32, 32))
    header = measure(data)
    assert (header.format, header.height, header.width, header.channels) == ("JPEG 2000", *SIZE, 3)


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


def test_a_jpeg_2000_of_many_packets_is_refused() -> None:
    data = by_pillow("JPEG2000", no_jp2=True, tile_size=(32, 32))
    at = data.index(b"\xff\x52")
    changes: list[tuple[Any, str]] = [
        ((at + 6, ">H", 65535), "packets"),
        ((at + 9, "B", 33), "very many levels"),
        ((at + 10, "BB", 0, 0), "very small blocks"),
        ((8, ">II", 9000, 9000), "79524 tiles"),
        ((24, ">II", 0, 0), "damaged"),
    ]
    for change, words in changes:
        place, layout, *values = change
        with pytest.raises(InputError, match=words):
            measure(patched(data, place, layout, *values))


def test_an_avif_coded_larger_than_it_claims_is_refused() -> None:
    data = by_opencv(".avif", np.zeros((2000, 2000, 3), np.uint8))
    at = data.index(b"ispe") + 8
    with pytest.raises(InputError, match="claims 16x16, but 4000000 pixels are coded in it"):
        measure(patched(data, at, ">II", 16, 16))


def tiff(*entries: tuple[int, int, int, int], order: str = "<") -> bytes:
    start = b"II\x2a\0" if order == "<" else b"MM\0\x2a"
    packed = b"".join(
        struct.pack(f"{order}HHI", *entry[:3])
        + (struct.pack(f"{order}HH", entry[3], 0) if entry[1] == 3 else struct.pack(f"{order}I", entry[3]))
        for entry in entries
    )
    return start + struct.pack(f"{order}IH", 8, len(entries)) + packed + bytes(4)


GRAY = ((256, 3, 1, 9), (257, 3, 1, 7), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_directories(order: str) -> None:
    header = measure(tiff(*GRAY, order=order))
    assert (header.height, header.width, header.channels, header.bits) == (7, 9, 1, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((277, 3, 1, 5), "5 channels of gray"),
        ((262, 3, 1, 5), "CMYK"),
        ((262, 3, 1, 8), "1 channels of CIE Lab"),
        ((258, 3, 1, 64), "uint64 values"),
        ((339, 3, 1, 3), "float8 values; scale it"),
        ((339, 3, 1, 2), "int8 values"),
        ((259, 3, 1, 34925), "compression 34925"),
        ((256, 3, 1, 0), "7x0 and has no pixels"),
        ((256, 4, 1, LARGEST_SIDE + 1), "a side is above"),
        ((256, 11, 1, 9), "damaged"),
        ((279, 4, 1 << 30, 0), "ends early"),
        ((322, 4, 1, 99999), "damaged"),
    ],
)
def test_tiffs_that_are_refused(change: tuple[int, int, int, int], words: str) -> None:
    entries = {entry[0]: entry for entry in GRAY} | {change[0]: change}
    with pytest.raises(InputError, match=words):
        measure(tiff(*(entries[tag] for tag in sorted(entries))))


def test_a_tiff_that_names_its_width_twice_is_refused() -> None:
    with pytest.raises(InputError, match="damaged"):
        measure(tiff(GRAY[0], *GRAY))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello", "no format that OpenCV reads"),
        (b"", "no format that OpenCV reads"),
        (b"#?RADIANCE\n", "float32 values"),
        (b"PF\n3 2\n-1\n" + bytes(72), "float32 values"),
        (b"\x76\x2f\x31\x01" + bytes(99), "float32 values"),
        (b"P5 3 2 70000 " + bytes(99), "largest value of 70000"),
        (b"P5 # only a comment", "damaged"),
        (b"P6 3 2 255 " + bytes(17), "ends early"),
        (b"P3 3 2 255 1 2", "ends early"),
        (b"P7\nWIDTH 2\nENDHDR\n", "damaged"),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(99), "kind of tuple"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8" + b"\xff\xe5\x00\x02" * 200_000, "segments"),
        (b"\0\0\0\x1cftypheic" + bytes(99), "HEIC, which needs pillow-heif"),
        (b"\0\0\0\x1cftypavis" + bytes(99), "film"),
        (b"GIF89a\x02\0\x02\0\0\0\0\x2c\1\0\0\0\x02\0\x02\0\0\x02\0", "damaged"),
        (b"RIFF\x20\0\0\0WEBPVP9 " + bytes(40), "damaged"),
        (b"\x59\xa6\x6a\x95" + struct.pack(">7I", 2, 2, 24, 0, 2, 0, 0), "Sun raster"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=f"picture 'a' .*{words}") as caught:
        measure(data, "picture 'a'")
    assert "\n" not in str(caught.value)


def test_a_gif_of_clear_codes_is_refused_and_a_large_one_is_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "GIF")
    assert len(stream.getvalue()) > 400_000
    assert measure(stream.getvalue()).width == 700
    codes = bytes((0x24, 0x49, 0x92)) * 100_000
    blocks = b"".join(b"\xff" + codes[start : start + 255] for start in range(0, len(codes) - 255, 255))
    size = struct.pack("<HH", 900, 900)
    with pytest.raises(InputError, match="clears its codes"):
        measure(b"GIF89a" + size + b"\0\0\0\x2c\0\0\0\0" + size + b"\0\x02" + blocks + b"\0;")
