"""TIFFs of many channels: every way of storing them gives the same numbers, and what is not read is refused by name."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgeseg.decoding.tiff_channels import is_tiff, read_tiff_channels
from edgeseg.errors import InputError
from tests.channel_tiffs import tiff

MOST = 10_000


def _stored(channels: int, dtype: Any = np.uint8, size: tuple[int, int] = (20, 30)) -> NDArray[Any]:
    high = np.iinfo(dtype).max + 1
    return np.random.default_rng(channels).integers(0, high, (*size, channels), dtype=dtype)


def _read(data: bytes, channels: int, most: int = MOST) -> NDArray[Any]:
    return read_tiff_channels(data, "the picture", channels, max_pixels=most)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 13, 200])
@pytest.mark.parametrize("planar", [False, True])
def test_channels_come_in_the_order_of_the_file(channels: int, dtype: Any, planar: bool) -> None:
    image = _stored(channels, dtype)
    read = _read(tiff(image, planar=planar), channels)
    np.testing.assert_array_equal(read, image)
    assert read.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("how", [{}, {"predictor": True}, {"tile": (16, 16)}, {"planar": True}, {"order": ">"}])
def test_every_compression_gives_the_same(compression: int, how: dict[str, Any], dtype: Any) -> None:
    if compression == 1 and "predictor" in how:
        pytest.skip("differences are stored with a compression only")
    image = _stored(5, dtype)
    np.testing.assert_array_equal(_read(tiff(image, compression=compression, **how), 5), image)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(2, 9),
    planar=st.booleans(),
    tile=st.sampled_from([None, (16, 16), (16, 32)]),
    rows=st.integers(1, 50),
    compression=st.sampled_from([1, 5, 8, 32773]),
    order=st.sampled_from(["<", ">"]),
    big=st.booleans(),
    wide=st.booleans(),
)
def test_any_layout_gives_the_same(size: tuple[int, int], channels: int, wide: bool, **how: Any) -> None:
    image = _stored(channels, np.uint16 if wide else np.uint8, size)
    np.testing.assert_array_equal(_read(tiff(image, **how), channels), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_pages_of_opencv_and_pillow_are_channels(channels: int, dtype: Any) -> None:
    image = _stored(channels, dtype)
    pages = [np.ascontiguousarray(image[..., k]) for k in range(channels)]
    done, data = cv2.imencodemulti(".tiff", pages)
    assert done
    np.testing.assert_array_equal(_read(data.tobytes(), channels), image)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        file, first = io.BytesIO(), Image.fromarray(pages[0])
        rest = [Image.fromarray(page) for page in pages[1:]]
        first.save(file, "TIFF", save_all=True, append_images=rest, compression=compression)
        np.testing.assert_array_equal(_read(file.getvalue(), channels), image)


@pytest.mark.parametrize("channels", [3, 4])
def test_opencv_stores_blue_first_in_memory_and_red_first_in_the_file(channels: int) -> None:
    bgr = _stored(channels)
    order = [2, 1, 0, 3][:channels]
    np.testing.assert_array_equal(_read(cv2.imencode(".tiff", bgr)[1].tobytes(), channels), bgr[..., order])


def test_pillow_stores_as_it_is() -> None:
    rgba = _stored(4)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "TIFF")
    np.testing.assert_array_equal(_read(file.getvalue(), 4), rgba)
    file = io.BytesIO()
    Image.fromarray(rgba[..., :2]).save(file, "TIFF")
    np.testing.assert_array_equal(_read(file.getvalue(), 2), rgba[..., :2])


def test_overviews_and_masks_are_no_pages() -> None:
    image = _stored(5)
    data = tiff(image, image[::2, ::2], image[..., :1], kinds=(0, 1, 4))
    np.testing.assert_array_equal(_read(data, 5), image)
    planes = [image[..., k : k + 1] for k in range(5)]
    np.testing.assert_array_equal(_read(tiff(*planes, image[::2, ::2], kinds=(0,) * 5 + (1,)), 5), image)


def _pages(*shapes: tuple[int, int, int]) -> bytes:
    return tiff(*[np.zeros(shape, np.uint8) for shape in shapes])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (_pages((20, 30, 5)), "holds 5 channels, expected 4 channels in one page, or 4 pages of one"),
        (_pages((20, 30, 3)), "holds 3 channels, expected 4"),
        (_pages(*[(20, 30, 1)] * 3), "holds 3 pages of 1 channel, expected 4"),
        (_pages(*[(20, 30, 4)] * 4), "holds 4 pages of 4 channels, expected 4"),
        (_pages((20, 30, 4), (20, 30, 1)), "holds 2 pages of various numbers of channels, expected 4"),
        (_pages(*[(20, 30, 1)] * 3, (20, 31, 1)), "holds pages of 20x30 and 20x31; save every channel in one size"),
        (tiff(_stored(4), tags={262: 5}), "holds CMYK colours, expected channels as they are"),
        (tiff(_stored(4), tags={262: 0}), "holds white as 0"),
        (tiff(_stored(4), tags={262: 6}), "holds YCbCr colours"),
        (tiff(_stored(4), tags={274: 6}), "stored in another order"),
        (tiff(_stored(4), tags={266: 2}), "stored in another order"),
        (tiff(_stored(4), tags={339: 2}), "holds int8 values, expected uint8 or uint16"),
        (tiff(_stored(4, np.uint16), tags={339: 3}), "holds float16 values"),
        (tiff(_stored(4), tags={258: 32}), "holds uint32 values"),
        (tiff(_stored(4), tags={259: 50000}), "is a TIFF of compression 50000"),
        (tiff(_stored(4), tags={259: 7}), "is a TIFF of compression 7"),
        (tiff(_stored(4), tags={317: 3}), r"\(predictor 3\)"),
        (tiff(_stored(4))[:-300], "ends early"),
        (tiff(_stored(4), tags={257: 21}), "ends early"),
        (tiff(_stored(4), tags={278: 5}), "is damaged"),
        (tiff(_stored(4), tags={257: 0}), "is damaged"),
        (tiff(_stored(4), tags={259: 8}), "is damaged"),
        (tiff(_stored(4), tags={259: 5}), "is damaged"),
        (tiff(_stored(4), tile=(16, 16), tags={322: 1 << 22}), "is a TIFF of tiles of"),
    ],
)
def test_what_is_not_read_is_refused_by_name(data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as said:
        _read(data, 4)
    assert str(said.value).startswith("the picture ")


def test_the_limit_on_pixels_holds() -> None:
    with pytest.raises(InputError, match=r"is 20x30, above 599 pixels; .*max_pixels"):
        _read(tiff(_stored(4)), 4, 599)


@pytest.mark.parametrize("size", [(20, 30), (19, 31)])
@pytest.mark.parametrize("compression", [5, 8, 32773])
def test_a_part_that_is_cut_off_is_damage(compression: int, size: tuple[int, int]) -> None:
    whole = tiff(_stored(5, size=size), compression=compression, rows=20)
    cut = tiff(_stored(5, size=size)[:9], compression=compression, rows=20, tags={257: size[0]})
    assert _read(whole, 5).shape == (*size, 5)
    with pytest.raises(InputError, match="is damaged"):
        _read(cut, 5)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 255), st.sampled_from([1, 5, 8]))
def test_a_changed_byte_is_a_picture_or_one_sentence(at: int, value: int, compression: int) -> None:
    data = bytearray(tiff(_stored(4, size=(9, 11)), compression=compression))
    data[at % len(data)] = value
    with contextlib.suppress(InputError):  # any other error fails
        assert _read(bytes(data), 4).shape[2] == 4


@pytest.mark.parametrize("size", [(601, 703), (600, 703), (1, 1)])
def test_one_large_part_of_an_odd_number_of_bytes(size: tuple[int, int]) -> None:
    image = np.broadcast_to(_stored(5, size=(size[0], 1)), (*size, 5)).copy()
    np.testing.assert_array_equal(_read(tiff(image, compression=5, rows=size[0]), 5, 10**6), image)


def test_tiffs_are_recognised() -> None:
    assert is_tiff(tiff(_stored(4)))
    assert is_tiff(tiff(_stored(4), order=">", big=True))
    assert not is_tiff(b"\x89PNG")
    assert not is_tiff(b"")
