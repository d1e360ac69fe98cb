"""Every filter against a reference of whole numbers, bit for bit, and against what it gave on other processors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.resizing import resize
from edgeseg.specs import ResizeFilter, Size

U8 = NDArray[np.uint8]
Weights = list[dict[int, int]]
"""For each new pixel of an axis: old pixel -> whole weight."""

FILTERS: tuple[ResizeFilter, ...] = get_args(ResizeFilter)
SIZES: tuple[tuple[Size, Size], ...] = (
    ((37, 53), (24, 40)),
    ((37, 53), (74, 106)),
    ((64, 96), (32, 48)),
    ((61, 90), (7, 11)),
    ((9, 16), (100, 31)),
    ((1, 1), (3, 4)),
    ((5, 7), (1, 1)),
)


def pattern(size: Size, channels: int = 3) -> U8:
    """Make a picture of edges, ramps and noise by whole numbers alone, the same on every machine."""
    y, x, c = np.ogrid[: size[0], : size[1], :channels]
    noise = (y * 7919 + x * 104729 + c * 1299709) * 2654435761 % 4294967291 >> 13
    return np.asarray((noise % 97 + (x * 5 + y * 3) % 160 + (x // 8 + y // 8 + c) % 2 * 90) % 256, np.uint8)


# --- references ------------------------------------------------------------------------------------------------------


def centre(index: int, old: int, new: int) -> float:
    return (index + 0.5) * (1.0 / (new / old)) - 0.5


def linear_weights(old: int, new: int) -> Weights:
    """In 256ths."""
    found: Weights = []
    for index in range(new):
        place = centre(index, old, new)
        low = math.floor(place)
        if low < 0 or low >= old - 1:
            found.append({min(max(low, 0), old - 1): 256})
        else:
            part = round((place - low) * 256)
            found.append({low: 256 - part, low + 1: part})
    return found


def cubic_weights(old: int, new: int) -> Weights:
    """Sampled of the kernel with a = -0.75, in 2048ths; the last takes what is left."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (1.25 * x - 2.25) * x * x + 1.0
        return ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0

    found: Weights = []
    for index in range(new):
        place = centre(index, old, new)
        low = math.floor(place)
        parts = [round(2048 * kernel(place - low + 1.0 - k)) for k in range(3)]
        weights: dict[int, int] = {}
        for k, part in enumerate([*parts, 2048 - sum(parts)]):
            at = min(max(low - 1 + k, 0), old - 1)
            weights[at] = weights.get(at, 0) + part
        found.append(weights)
    return found


def pillow_weights(old: int, new: int) -> Weights:
    """Sampled of a triangle as wide as a new pixel, in parts of 2 ** 22."""
    scale = max(old / new, 1.0)
    found: Weights = []
    for index in range(new):
        place = (index + 0.5) * (old / new)
        low, high = max(int(place - scale + 0.5), 0), min(int(place + scale + 0.5), old)
        parts = [max(0.0, 1.0 - abs((at - place + 0.5) / scale)) for at in range(low, high)]
        found.append(
            {at: int(0.5 + part / sum(parts) * 2**22) for at, part in zip(range(low, high), parts, strict=True)}
        )
    return found


def dense(weights: Weights, old: int) -> NDArray[np.int64]:
    matrix = np.zeros((len(weights), old), np.int64)
    for index, parts in enumerate(weights):
        for at, part in parts.items():
            matrix[index, at] = part
    return matrix


def both_ways(image: U8, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.einsum("yh,hwc,xw->yxc", rows, image.astype(np.int64), columns), np.int64)


def linear(image: U8, size: Size) -> U8:
    (height, width), (new_height, new_width) = image.shape[:2], size
    rows, columns = dense(linear_weights(height, new_height), height), dense(linear_weights(width, new_width), width)
    return np.asarray((both_ways(image, rows, columns) + 2**15) >> 16, np.uint8)


def cubic(image: U8, size: Size) -> U8:
    (height, width), (new_height, new_width) = image.shape[:2], size
    rows, columns = dense(cubic_weights(height, new_height), height), dense(cubic_weights(width, new_width), width)
    return np.asarray(np.clip((both_ways(image, rows, columns) + 2**21) >> 22, 0, 255), np.uint8)


def area(image: U8, size: Size) -> U8:
    """Cut every pixel into so many that all new ones are whole."""
    height, width, channels = image.shape
    fine = image.astype(np.int64).repeat(size[0], axis=0).repeat(size[1], axis=1)
    sums = fine.reshape(size[0], height, size[1], width, channels).sum(axis=(1, 3))
    return np.asarray((2 * sums + height * width) // (2 * height * width), np.uint8)


def nearest(image: U8, size: Size) -> U8:
    rows, columns = (
        [min(math.floor(index * (1.0 / (new / old))), old - 1) for index in range(new)]
        for old, new in zip(image.shape[:2], size, strict=True)
    )
    return np.array([[image[row, column] for column in columns] for row in rows], np.uint8)


def pillow(image: U8, size: Size) -> U8:
    """Pillow before version 13: rounds after each axis, columns first; an axis of equal size stays as it is."""
    for axis in (1, 0):
        old, new = image.shape[axis], size[axis]
        if old != new:
            matrix = dense(pillow_weights(old, new), old)
            sums = np.moveaxis(np.tensordot(matrix, image.astype(np.int64), (1, axis)), 0, axis)
            image = np.clip((sums + 2**21) >> 22, 0, 255).astype(np.uint8)
    return image


REFERENCES: dict[ResizeFilter, Callable[[U8, Size], U8]] = {
    "linear": linear,
    "area": area,
    "cubic": cubic,
    "nearest": nearest,
    "pillow_bilinear": pillow,
}


# --- tests -----------------------------------------------------------------------------------------------------------


def test_every_filter_has_a_reference() -> None:
    assert set(REFERENCES) == set(FILTERS)


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equals_its_reference(kind: ResizeFilter, old: Size, new: Size) -> None:
    assert np.array_equal(resize(pattern(old), new, kind), REFERENCES[kind](pattern(old), new))


@pytest.mark.parametrize("kind", FILTERS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_equals_its_reference_on_any_picture(kind: ResizeFilter, data: Any) -> None:
    sides = st.integers(1, 40)
    old, new = data.draw(st.tuples(sides, sides)), data.draw(st.tuples(sides, sides))
    image = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(0, 256, (*old, 3), np.uint8)
    image = np.where(image < data.draw(st.integers(0, 255)), 0, image).astype(np.uint8)  # also few and extreme values
    assert np.array_equal(resize(image, new, kind), REFERENCES[kind](image, new))


@pytest.mark.parametrize(
    ("kind", "code", "off"),
    [
        ("linear", cv2.INTER_LINEAR, 1),
        ("area", cv2.INTER_AREA, 1),
        ("cubic", cv2.INTER_CUBIC, 1),
        ("nearest", cv2.INTER_NEAREST, 0),
    ],
)
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_is_opencv_s_filter_to_the_last_bit(kind: ResizeFilter, code: int, off: int, old: Size, new: Size) -> None:
    """Published weights were trained with OpenCV's."""
    of_opencv = cv2.resize(pattern(old), new[::-1], interpolation=code)
    assert np.abs(resize(pattern(old), new, kind).astype(int) - of_opencv).max() <= off


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_each_channel_is_resized_alone(kind: ResizeFilter, channels: int) -> None:
    image = pattern((21, 34), channels)
    found = resize(image, (30, 20), kind)
    assert found.shape == (30, 20, channels)
    for channel in range(channels):
        plane = np.ascontiguousarray(image[..., channel])
        assert np.array_equal(found[..., channel], resize(plane, (30, 20), kind))


@pytest.mark.parametrize("kind", FILTERS)
def test_one_colour_stays(kind: ResizeFilter) -> None:
    for value in (0, 1, 127, 254, 255):
        assert (resize(np.full((23, 31, 3), value, np.uint8), (40, 17), kind) == value).all()


_DIGESTS: dict[ResizeFilter, str] = {
    "linear": "d373350659406950fd9e34b9a95892bd2eae8a451a7e372677175fa39d9a8c36",
    "area": "7a3c400035d0589d288d708102c032a058ed1615cdf0d6d3351a86548a09dc34",
    "cubic": "d769f2e217a9b0c428dbd77fae70ad0de71b08433362187bb2abb7ef3cd5c422",
    "nearest": "38b2ea9f1143a8d97a790c4d057025bde136df069231d65aa38dc123b8c5d430",
    "pillow_bilinear": "ebe4bb07e505979387e7200b76ff8c1e61affe9c5c313d55b39a509c0189b07f",
}


@pytest.mark.parametrize("kind", FILTERS)
def test_gives_what_it_gave_on_other_processors(kind: ResizeFilter) -> None:
    """Every filter, shrinking and enlarging, over widths that end within a vector register of any processor."""
    digest = hashlib.sha256()
    for width in range(280, 297):
        for new in ((97, 131), (240, 240), (300, 451)):
            digest.update(resize(pattern((203, width)), new, kind).tobytes())
    assert digest.hexdigest() == _DIGESTS[kind]
