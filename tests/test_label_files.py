"""Label maps as people store them, against numpy."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.label_files import VOID, LabelRules, read_label_file
from edgeseg.labels import Color, label_set, voc_color

RNG = np.random.default_rng(0)
CAMVID: dict[Color, int | None] = {
    (0, 0, 0): None,
    **{color: index for index, color in enumerate(label_set("camvid", 11).palette)},
}


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _write_indexed(
    file: Path, indices: NDArray[np.uint8], table: list[Color], bits: int = 8, alpha: bytes = b"\xff"
) -> Path:
    """Write a PNG with a colour table, without a library that has its own view of indices."""
    height, width = indices.shape
    shifts = np.arange(bits - 1, -1, -1)
    packed = np.packbits((indices[..., None] >> shifts & 1).reshape(height, -1).astype(np.uint8), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", bytes(c for color in table for c in color)), (b"tRNS", alpha))
    body = b"".join(_chunk(*each) for each in (*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return file


def _write(file: Path, picture: NDArray[Any]) -> Path:
    assert cv2.imwrite(str(file), picture[..., ::-1] if picture.ndim == 3 else picture)
    return file


def _read(file: Path, **rules: Any) -> NDArray[Any]:
    return read_label_file(file, LabelRules(**rules)).labels


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_colour_table_gives_its_indices(bits: int, tmp_path: Path) -> None:
    indices = RNG.integers(0, 1 << bits, (13, 21), np.uint8)
    file = _write_indexed(
        tmp_path / "a.png", indices, [voc_color(index) for index in range(1 << bits)], bits, b"\0\x80"
    )
    assert np.array_equal(_read(file), indices)
    assert np.array_equal(_read(file, colors=CAMVID), indices)


def test_a_colour_table_of_the_classes_colours_at_other_indices_gives_the_colours(tmp_path: Path) -> None:
    palette = label_set("camvid", 11).palette
    indices = RNG.integers(0, 4, (13, 21), np.uint8)
    file = _write_indexed(tmp_path / "a.png", indices, [palette[7], palette[1], (0, 0, 0), palette[0]])
    assert np.array_equal(_read(file, colors=CAMVID), np.array([7, 1, VOID, 0])[indices])
    own = _write_indexed(tmp_path / "b.png", indices, list(palette[:4]))
    assert np.array_equal(_read(own, colors=CAMVID), indices)


def test_a_colour_table_of_black_and_white(tmp_path: Path) -> None:
    indices = RNG.integers(0, 2, (13, 21), np.uint8)
    file = _write_indexed(tmp_path / "a.png", indices, [(255, 255, 255), (0, 0, 0)], 1)
    read = read_label_file(file, LabelRules(positive_label=255))
    assert np.array_equal(read.labels, 1 - indices)
    assert read.notes == ("the colours of a colour table are read, not its indices",)
    with pytest.raises(InputError, match="shows its value 0 as white"):
        _read(file)
    file = _write_indexed(tmp_path / "b.png", indices, [(0, 0, 0), (255, 255, 255)], 1)
    assert np.array_equal(_read(file, positive_label=255), indices)
    assert np.array_equal(_read(file), indices)


def test_colours(tmp_path: Path) -> None:
    classes = RNG.integers(0, 12, (13, 21))
    palette = np.array([*label_set("camvid", 11).palette, (0, 0, 0)], np.uint8)
    file = _write(tmp_path / "a.png", palette[classes])
    assert np.array_equal(_read(file, colors=CAMVID), np.where(classes == 11, VOID, classes))
    file = _write(tmp_path / "b.png", np.full((3, 4, 3), (1, 2, 3), np.uint8))
    with pytest.raises(InputError, match="holds the colours #010203, which are none of the classes'"):
        _read(file, colors=CAMVID)
    with pytest.raises(InputError, match="holds colours, for which no table of classes is known"):
        _read(file)
    grey = np.repeat(classes[..., None], 3, 2).astype(np.uint8)
    read = read_label_file(_write(tmp_path / "c.png", grey), LabelRules())
    assert np.array_equal(read.labels, classes)
    assert read.notes == ("three equal channels are read as one value",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_reduce_zero_label(dtype: type[np.unsignedinteger[Any]], tmp_path: Path) -> None:
    stored = RNG.integers(0, 151, (13, 21)).astype(dtype)
    stored[0] = 200 if dtype == np.uint8 else 300
    labels = _read(_write(tmp_path / "a.png", stored), reduce_zero_label=True, ignore=int(stored[0, 0]))
    expected = stored.astype(int) - 1
    expected[(stored == 0) | (stored == stored[0, 0])] = VOID
    assert np.array_equal(labels, expected)
    eight = np.array([[0, 1, 255]], np.uint8)
    assert _read(_write(tmp_path / "b.png", eight), reduce_zero_label=True).tolist() == [[VOID, 0, VOID]]


@pytest.mark.parametrize(
    ("stored", "rules", "expected", "note"),
    [
        ([0, 128, 255], {"ignore": 128}, [0, VOID, 1], ""),
        ([0, 1, 255], {"ignore": 255, "positive_label": 1}, [0, 1, VOID], ""),
        ([0, 127, 128, 255], {}, [0, 0, 1, 1], "cut at half: class 1 from 128 on"),
        ([0, 100, 255], {}, [0, 0, 1], "label value 100 is cut at half.*name it with ignore"),
        ([0, 7, 9], {"positive_label": 7}, [0, 1, 0], "besides 0 and 7 count as class 0"),
        ([0, 255], {"either": True}, [0, 1], ""),
        ([0, 1], {"either": True}, [0, 1], ""),
    ],
)
def test_masks(stored: list[int], rules: dict[str, Any], expected: list[int], note: str, tmp_path: Path) -> None:
    file = _write(tmp_path / "a.png", np.array([stored], np.uint8))
    options: dict[str, Any] = {"positive_label": 255} | rules
    read = read_label_file(file, LabelRules(**options))
    assert read.labels.tolist() == [expected]
    assert len(read.notes) == bool(note)
    if note:
        (got,) = read.notes
        assert re.search(note, got)


def test_masks_of_other_ranges(tmp_path: Path) -> None:
    deep = _write(tmp_path / "deep.png", np.array([[0, 32767, 32768, 65535]], np.uint16))
    assert _read(deep, positive_label=65535).tolist() == [[0, 0, 1, 1]]
    with pytest.raises(InputError, match="above the positive_label 255"):
        _read(deep, positive_label=255)
    with pytest.raises(InputError, match="holds 1 and no 255; for masks of 0 and 1 leave positive_label out"):
        _read(_write(tmp_path / "one.png", np.array([[0, 1]], np.uint8)), positive_label=255)


def test_a_table_of_values(tmp_path: Path) -> None:
    stored = RNG.integers(0, 4, (13, 21), np.uint8)
    read = read_label_file(_write(tmp_path / "a.png", stored), LabelRules(table={0: 2, 1: None, 3: 0}))
    assert read.outside(3).tolist() == [2]
    kept = stored != 2
    assert np.array_equal(read.labels[kept], np.array([2, VOID, 0, 0])[stored][kept])


@pytest.mark.parametrize(
    ("suffix", "kind", "told"),
    [
        (".webp", "WEBP", "is a lossy WebP"),
        (".png", "WEBP", "is a lossy WebP"),
        (".tif", "TIFF", "is a TIFF of JPEGs"),
        (".jp2", "JPEG2000", "is a JPEG 2000"),
        (".jpg", "JPEG", "is a JPEG"),
    ],
)
def test_formats_that_change_values_are_refused(suffix: str, kind: str, told: str, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    file, stored = tmp_path / f"a{suffix}", np.kron(RNG.integers(0, 19, (4, 6)), np.ones((8, 8))).astype(np.uint8)
    options: dict[str, Any] = (
        {"compression": "jpeg"} if kind == "TIFF" else {"quality": 90} if kind != "JPEG2000" else {}
    )
    Image.fromarray(stored).convert("RGB" if kind == "WEBP" else "L").save(file, kind, **options)
    with pytest.raises(InputError, match=f"{told}, which changes label values; save the label maps as PNG"):
        _read(file)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".webp", {"lossless": True}), (".tif", {"compression": "tiff_lzw"}), (".bmp", {}), (".pgm", {}), (".gif", {})],
)
def test_formats_that_keep_values_are_read(suffix: str, options: dict[str, Any], tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    stored = np.kron(RNG.integers(0, 19, (4, 6)), np.ones((8, 8))).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", **options)
    assert np.array_equal(_read(tmp_path / f"a{suffix}"), stored)


def test_files_that_cannot_hold_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a JPEG, which changes label values"):
        _read(_write(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8)))
    mask = np.zeros((16, 16), np.uint8)
    mask[:, 8:] = 255
    assert np.array_equal(_read(_write(tmp_path / "b.jpg", mask), positive_label=255), mask // 255)
    transparent = np.zeros((2, 2, 4), np.uint8)
    assert cv2.imwrite(str(tmp_path / "c.png"), transparent)
    with pytest.raises(InputError, match="has transparent pixels"):
        _read(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"positive_label": 1, "reduce_zero_label": True}, "positive_label and reduce_zero_label each say"),
        ({"table": {0: 0}, "reduce_zero_label": True}, "reduce_zero_label and label_map each say"),
        ({"ignore": 255, "positive_label": 255}, "255 cannot be void"),
        ({"ignore": 3, "table": {3: 1}}, "3 is void .* and a class in label_map"),
        ({"ignore": -1}, "ignore is -1"),
    ],
)
def test_rules_that_cancel_one_another(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LabelRules(**rules)
