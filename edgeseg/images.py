"""Files and arrays become uint8 RGB, and uint8 RGB becomes the size the network takes.

Nothing here guesses. A file that is cut short, holds CMYK or floats, or is not a picture is refused with one sentence.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.decoding import DECODER_BYTES, MAX_PIXELS, Decoded, decode
from edgeseg.errors import InputError, SizeError, UsageError
from edgeseg.postprocess import Region
from edgeseg.resizing import resize
from edgeseg.specs import ResizeRule, Size
from edgeseg.text import first_line, one_line, shown_name

__all__ = [
    "MAX_PIXELS",
    "U8",
    "Decoded",
    "as_rgb",
    "check_max_pixels",
    "depth_notes",
    "fit_image",
    "input_digest",
    "load_image",
    "read_file",
    "read_image",
    "to_eight_bits",
]

U8 = NDArray[np.uint8]

_OVERHEAD = 1 << 26  # bytes of a file beside its pixels


# --- files -------------------------------------------------------------------------------------------------------


def read_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> U8:
    """Read a picture file as RGB, in any format that OpenCV decodes to whole numbers, whatever its suffix is.

    The picture is measured before it is decoded. Its orientation is applied, once. Gray becomes three equal channels.
    Alpha is dropped, and the colour beneath kept as stored (straight alpha). More than 8 bits per channel are scaled so
    that white, the largest value of so many bits, is 255. Of animations and files of several pages the first picture is
    read; of an animated PNG the one that programs without animation show. HEIC needs the package pillow-heif. A damaged
    picture is returned as far as it decodes; `load_image` also describes the damage, and what was left out.

    Args:
        path: Any path, non-ASCII ones too.
        max_pixels: Largest height x width in pixels; a decoder may use 8 bytes for each of them.
        strict: Refuse damaged pictures.

    Returns:
        uint8 (H, W, 3) RGB, contiguous.

    Raises:
        InputError: Missing, unreadable, empty or cut short; not a picture; CMYK or float pixels; above `max_pixels`;
            with `strict` damaged.
        UsageError: `max_pixels` is below 1.

    Example:
        >>> read_image(bundle.file("sample.png")).shape
        (44, 52, 3)
    """
    return load_image(path, max_pixels=max_pixels, strict=strict).image


def load_image(path: str | Path, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> Decoded:
    """Read a picture file as `read_image` does, and describe its damage and what was left out.

    Damage is described where it can be recognised: a JPEG that libjpeg warns of, a PNG chunk whose checksum is wrong.
    Damage of other formats is not recognised.

    Args:
        path: As `read_image`.
        max_pixels: As `read_image`.
        strict: As `read_image`.

    Returns:
        The picture, uint8 (H, W, 3) RGB, sentences on its damage, and on later pages that were left out.

    Raises:
        InputError: As `read_image`.
        UsageError: As `read_image`.

    Example:
        >>> load_image(bundle.file("sample.png")).damaged
        ()
    """
    name = f"picture '{shown_name(path)}'"
    decoded = decode(read_file(path, name, max_pixels), name, max_pixels=max_pixels, strict=strict)
    try:
        notes = decoded.notes + depth_notes(decoded.image)
        return Decoded(to_eight_bits(decoded.image, name), decoded.damaged, notes)
    except (cv2.error, MemoryError) as error:
        size = f"{decoded.image.shape[0]}x{decoded.image.shape[1]}"
        raise InputError(f"{name} is {size}, and memory ran out; make it smaller") from error


def read_file(path: str | Path, name: str, max_pixels: int = MAX_PIXELS, pixel_bytes: int = DECODER_BYTES) -> bytes:
    """Read a whole file, unless it is larger than any picture of `max_pixels` pixels.

    Args:
        path: Any path.
        name: What a message calls the file.
        max_pixels: Largest height x width of the picture in it.
        pixel_bytes: Bytes that a pixel takes in a file at the most.

    Raises:
        InputError: Missing, unreadable, empty or too large.
        UsageError: `max_pixels` is below 1.
    """
    check_max_pixels(max_pixels)
    most = pixel_bytes * max_pixels + _OVERHEAD
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            ordinary = stat.S_ISREG(status.st_mode)
            data = b"" if ordinary and status.st_size > most else file.read(-1 if ordinary else most + 1)
            size = max(len(data), status.st_size if ordinary else 0)
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise InputError(f"cannot read {name}: {reason.lower()}; check the path") from error
    if size > most:
        raise InputError(
            f"{name} has {size} bytes, more than a picture of {max_pixels} pixels; allow more (max_pixels)"
        )
    if not data:
        raise InputError(f"{name} cannot be read as a picture: it is empty (0 bytes); get it whole")
    return data


def check_max_pixels(max_pixels: int) -> None:
    """Refuse a limit below 1.

    Raises:
        UsageError: `max_pixels` is below 1.
    """
    if max_pixels < 1:
        raise UsageError(f"max_pixels is {max_pixels}; give the largest height x width in pixels, such as {MAX_PIXELS}")


# --- arrays ------------------------------------------------------------------------------------------------------


def as_rgb(array: Any, color: Literal["rgb", "bgr"] = "rgb") -> U8:
    """Turn a caller's array into contiguous uint8 RGB.

    Args:
        array: uint8 or uint16 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), any strides. Alpha is dropped; uint16 is
            divided by 257 and rounded.
        color: Order of the colours in `array`; OpenCV's pictures are ``bgr``.

    Returns:
        uint8 (H, W, 3) RGB, contiguous; the same array where it is that already.

    Raises:
        InputError: Not a numpy array, another type or shape, or empty.

    Example:
        >>> as_rgb(np.zeros((4, 6), np.uint16)).shape
        (4, 6, 3)
    """
    if color not in ("rgb", "bgr"):
        raise InputError(f"colour order '{color}' is neither 'rgb' nor 'bgr'")
    if not isinstance(array, np.ndarray):
        got = f"{type(array).__module__}.{type(array).__qualname__}"
        raise InputError(f"a picture must be a numpy array of uint8 (height, width, 3), got {got}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        raise InputError(f"a picture must be (height, width, 3), got shape {array.shape}{hint}")
    if array.size == 0:
        raise InputError(f"the picture of shape {array.shape} has no pixels")
    picture = np.ascontiguousarray(to_eight_bits(array, "the picture"))
    return _three_channels(picture, color)


def _three_channels(picture: U8, color: str) -> U8:
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    codes = {
        (1, "rgb"): cv2.COLOR_GRAY2RGB,
        (1, "bgr"): cv2.COLOR_GRAY2RGB,
        (3, "bgr"): cv2.COLOR_BGR2RGB,
        (4, "rgb"): cv2.COLOR_RGBA2RGB,
        (4, "bgr"): cv2.COLOR_BGRA2RGB,
    }
    code = codes.get((channels, color))
    return picture if code is None else np.asarray(cv2.cvtColor(picture, code), np.uint8)


def depth_notes(stored: Any) -> tuple[str, ...]:
    """Say that a picture of 16 bits hardly uses them, as those of 10, 12 and 14 bits and reflectances do; else nothing.

    Example:
        >>> len(depth_notes(np.full((2, 2), 4000, np.uint16))), depth_notes(np.full((2, 2), 40000, np.uint16))
        (1, ())
    """
    narrow = isinstance(stored, np.ndarray) and stored.dtype.kind == "u" and stored.dtype.itemsize == 2
    return (_DARK,) if narrow and 0 < int(stored.max(initial=0)) < _DARK_BELOW else ()


_DARK_BELOW = 1 << 14
_DARK = (
    "its 16 bits use less than a quarter of their range, 0..65535, so that it is dark in 8 bits; scale it to "
    "that range, or to uint8, first"
)


def to_eight_bits(picture: NDArray[Any], name: str) -> U8:
    """Make uint8 of uint8 or uint16, which is divided by 257 and rounded; `name` is what a message calls it.

    Raises:
        InputError: Another type.
    """
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype == np.uint16:
        return _narrowed(picture)
    if picture.dtype.kind == "f":
        raise InputError(f"{name} holds {picture.dtype} values; scale it to uint8 0..255 first")
    raise InputError(f"{name} holds {picture.dtype} values, expected uint8 0..255; convert it first")


def _narrowed(picture: NDArray[np.uint16]) -> U8:
    """Divide by 257 and round, without a wider copy of the picture; float32 is exact enough for every value."""
    rows = np.ascontiguousarray(picture).reshape(len(picture), -1)  # OpenCV takes no more than 128 channels
    narrow = cv2.convertScaleAbs(rows, alpha=1.0 / 257.0)
    return np.asarray(narrow, np.uint8).reshape(picture.shape)


# --- sizes -------------------------------------------------------------------------------------------------------


def fit_image(image: U8, size: Size, rule: ResizeRule) -> tuple[U8, Region | None]:
    """Resize a picture to the network's size by the bundle's rule, bit for bit the same on every machine.

    Args:
        image: uint8 (H, W, 3) RGB, or of any other number of channels, each of which is then resized alone, as grey is.
        size: Height x width of the network's input.
        rule: ``stretch``; ``letterbox`` (keeps the aspect ratio and centres; an odd pixel of padding goes below and
            right); ``none``.

    Returns:
        uint8 (height, width, channels), the same array where the sizes agree; and after a letterbox the part of it that
        the picture covers, else None.

    Raises:
        SizeError: The rule is ``none`` and the sizes differ.
        InputError: The picture cannot be resized, for want of memory.
        TargetUnavailableError: The rule needs Pillow and it is not installed.
        UsageError: The rule's padding has another number of channels than the picture.

    Example:
        >>> image = np.zeros((50, 100, 3), np.uint8)
        >>> resized, region = fit_image(image, (64, 64), ResizeRule("letterbox"))
        >>> resized.shape, region
        ((64, 64, 3), Region(net_size=(64, 64), top=16.0, left=0.0, height=32.0, width=64.0))
    """
    if image.shape[:2] == tuple(size):
        return image, None
    if rule.mode == "none":
        got, expected = f"{image.shape[0]}x{image.shape[1]}", f"{size[0]}x{size[1]}"
        raise SizeError(f"the picture is {got} and this network takes {expected} without resizing; pass {expected}")
    try:
        if rule.mode == "letterbox":
            return _letterbox(image, size, rule)
        return resize(image, size, rule.filter), None
    except (cv2.error, MemoryError) as error:
        got, wanted = f"{image.shape[0]}x{image.shape[1]}", f"{size[0]}x{size[1]}"
        raise InputError(
            f"the picture is {got} and cannot be resized to {wanted} ({first_line(error, 120)}); make it smaller first"
        ) from error


def input_digest(fitted: U8) -> str:
    """SHA-256 of a fitted picture's shape and pixels, which tells whether two machines gave a network the same.

    Example:
        >>> input_digest(np.zeros((2, 4, 3), np.uint8)) == input_digest(np.zeros((4, 2, 3), np.uint8))
        False
    """
    shape = "x".join(map(str, fitted.shape))
    return hashlib.sha256(f"{shape} {fitted.dtype} ".encode() + fitted.tobytes()).hexdigest()


def _letterbox(image: U8, size: Size, rule: ResizeRule) -> tuple[U8, Region]:
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height = min(size[0], max(1, round(image.shape[0] * scale)))
    width = min(size[1], max(1, round(image.shape[1] * scale)))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas: U8 = np.empty((*size, image.shape[2]), np.uint8)
    canvas[:] = rule.padding(image.shape[2])
    canvas[top : top + height, left : left + width] = resize(image, (height, width), rule.filter)
    return canvas, Region((size[0], size[1]), float(top), float(left), float(height), float(width))
