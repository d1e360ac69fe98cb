"""Pictures in: files and arrays become uint8 RGB, and uint8 RGB becomes the size the network takes.

Nothing here guesses: a file that is cut short, holds CMYK or floats, or is not a picture is refused with one sentence.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, SizeError, TargetUnavailableError
from edgeseg.specs import ResizeRule, Size
from edgeseg.tail import Region

__all__ = ["MAX_PIXELS", "as_rgb", "fit_image", "read_image"]

MAX_PIXELS = 1 << 30
"""Pictures above this are refused: OpenCV's own limit, and three gigabytes of pixels."""

U8 = NDArray[np.uint8]

_FILTERS = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Inside the coded picture 0xFF is followed by 0x00 (a stuffed byte), D0..D7 (restart) or another FF (filler).
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


# --- files -------------------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> U8:
    """Read a picture file (any format OpenCV decodes) as RGB.

    The EXIF orientation is applied. Gray becomes three equal channels. Alpha is dropped and the colour beneath kept as
    stored (straight alpha). 16 bits per channel become 8 by dividing by 257, rounded. Of animations, the first frame.

    Args:
        path: Any path, non-ASCII ones too.

    Returns:
        uint8 (H, W, 3) RGB, contiguous.

    Raises:
        InputError: Missing, unreadable, empty or cut short; not a picture; CMYK or float pixels; above `MAX_PIXELS`.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot read picture '{file}': {reason}") from error
    if not data:
        raise InputError(f"picture '{file}' is empty (0 bytes)")
    _check_whole(file, data)
    return _to_eight_bits(_decode(file, data), f"picture '{file}'")


def _decode(file: Path, data: bytes) -> NDArray[Any]:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # COLOR applies the EXIF orientation; UNCHANGED would not
    try:
        picture: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"cannot decode picture '{file}': it is damaged or above {MAX_PIXELS} pixels") from error
    if picture is None:
        raise InputError(f"'{file}' is not a picture OpenCV can read, or it is damaged; use PNG or JPEG")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)


def _check_whole(file: Path, data: bytes) -> None:
    """Refuse files that end early: decoders fill the missing part with gray and call it a success."""
    if data.startswith(_JPEG):
        _check_jpeg(file, data)
    elif data.startswith(_PNG):
        _check_png(file, data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise _cut_short(file)


def _check_png(file: Path, data: bytes) -> None:
    """A whole PNG ends with an IEND chunk."""
    if len(data) >= 24:
        _check_pixels(file, *struct.unpack(">II", data[16:24]))
    at = len(_PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IEND":
            return
        at += 12 + length
    raise _cut_short(file)


def _check_jpeg(file: Path, data: bytes) -> None:
    """A whole JPEG ends with an EOI marker; bytes after it are allowed. Four components mean CMYK."""
    at = 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return
        if marker in _JPEG_FRAMES and at + 8 <= len(data):
            height, width, components = struct.unpack(">HHB", data[at + 3 : at + 8])
            _check_pixels(file, width, height)
            if components == 4:
                raise InputError(f"picture '{file}' holds CMYK colours, not RGB; convert it to RGB first")
        at += int.from_bytes(data[at : at + 2], "big")
    raise _cut_short(file)


def _check_pixels(file: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"picture '{file}' is {height}x{width}, above {MAX_PIXELS} pixels; make it smaller first")


def _cut_short(file: Path) -> InputError:
    return InputError(f"picture '{file}' ends early (cut off while copying or still being written); get it whole")


# --- arrays ------------------------------------------------------------------------------------------------------


def as_rgb(array: Any, color: Literal["rgb", "bgr"] = "rgb") -> U8:
    """Make a caller's array what the rest works on.

    Args:
        array: uint8 or uint16 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), any strides. Alpha is dropped; uint16 is
            divided by 257 and rounded.
        color: Order of the colours in `array`; OpenCV's pictures are ``bgr``.

    Returns:
        uint8 (H, W, 3) RGB, contiguous; the array itself where it is that already.

    Raises:
        InputError: Not a numpy array, another type or shape, or empty.
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
    picture = np.ascontiguousarray(_to_eight_bits(array, "the picture"))
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


def _to_eight_bits(picture: NDArray[Any], name: str) -> U8:
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype == np.uint16:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype.kind == "f":
        raise InputError(f"{name} holds {picture.dtype} values; scale it to uint8 0..255 first")
    raise InputError(f"{name} holds {picture.dtype} values, expected uint8 0..255; convert it first")


# --- sizes -------------------------------------------------------------------------------------------------------


def fit_image(image: U8, size: Size, rule: ResizeRule) -> tuple[U8, Region | None]:
    """Bring a picture to the network's size the way its rule says.

    Args:
        image: uint8 (H, W, 3) RGB.
        size: Height x width of the network's input.
        rule: ``stretch``; ``letterbox`` (aspect kept, centred, an odd pixel of padding goes below and right); ``none``.

    Returns:
        uint8 (height, width, 3) RGB, the picture itself where the sizes agree, and after a letterbox where the picture
        lies in it, else None.

    Raises:
        SizeError: The rule is ``none`` and the sizes differ.
        TargetUnavailableError: The rule needs Pillow and it is not installed.
    """
    if image.shape[:2] == tuple(size):
        return image, None
    if rule.mode == "none":
        got, expected = f"{image.shape[0]}x{image.shape[1]}", f"{size[0]}x{size[1]}"
        raise SizeError(f"the picture is {got} and this network takes {expected} without resizing; pass {expected}")
    if rule.mode == "letterbox":
        return _letterbox(image, size, rule)
    return _resize(image, size, rule.filter), None


def _letterbox(image: U8, size: Size, rule: ResizeRule) -> tuple[U8, Region]:
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height = min(size[0], max(1, round(image.shape[0] * scale)))
    width = min(size[1], max(1, round(image.shape[1] * scale)))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas: U8 = np.empty((*size, 3), np.uint8)
    canvas[:] = rule.pad_value
    canvas[top : top + height, left : left + width] = _resize(image, (height, width), rule.filter)
    return canvas, Region((size[0], size[1]), float(top), float(left), float(height), float(width))


def _resize(image: U8, size: Size, kind: str) -> U8:
    if image.shape[:2] == tuple(size):
        return image
    if kind == "pillow_bilinear":
        return _pillow_bilinear(image, size)
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=_FILTERS[kind]), np.uint8)


def _pillow_bilinear(image: U8, size: Size) -> U8:
    """Pillow's bilinear, which widens its kernel when shrinking (antialias), on uint8 as it does it."""
    try:
        from PIL import Image
    except ImportError as error:
        message = "this network's resize rule is Pillow's bilinear, and Pillow is not installed"
        raise TargetUnavailableError(f"{message}; install it with pip install 'edgeseg[pillow]'") from error
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(resized, np.uint8)
