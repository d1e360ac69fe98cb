"""Pictures of any number of channels: arrays, files and stacks of files become uint8 (height, width, channels).

A network of 1 or 3 channels takes pictures (`edgeseg.images`). One of 2, 4 or more takes what is read here, in the
order of the array, the file or the list, and nothing is made up: another number of channels is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeseg.decoding import DECODER_BYTES, MAX_PIXELS, Decoded, decode
from edgeseg.decoding.headers import measure
from edgeseg.decoding.tiff_channels import is_tiff, read_tiff_channels
from edgeseg.errors import InputError
from edgeseg.images import U8, as_rgb, check_max_pixels, depth_notes, load_image, read_file, to_eight_bits
from edgeseg.text import first_line, one_line

__all__ = ["STACK_SUFFIXES", "PictureFile", "as_picture", "load_picture", "name_of", "viewable"]

PictureFile: TypeAlias = "str | Path | Sequence[str | Path]"
"""A picture's file, or a stack: one file per channel."""

STACK_SUFFIXES = frozenset((".npy", ".png", ".tif", ".tiff"))
"""Files that hold pictures of more channels than 3."""

_PNG_ORDER = {2: [0, -1], 4: [2, 1, 0, 3]}
"""Where OpenCV puts gray and alpha, and red, green, blue and alpha."""

_NPY = b"\x93NUMPY"


def name_of(picture: PictureFile) -> str:
    """Name a picture by its file, a stack by its first one.

    Example:
        >>> name_of(["red.tif", "nir.tif"])
        'red.tif'
    """
    return str(picture) if isinstance(picture, (str, Path)) else str(next(iter(picture), "a stack of no files"))


def as_picture(array: Any, channels: int = 3, color: Literal["rgb", "bgr"] = "rgb") -> U8:
    """Turn a caller's array into what a graph of so many channels takes.

    Args:
        array: For 3 channels what `edgeseg.images.as_rgb` takes. Else uint8 or uint16 (H, W, `channels`), any strides.
            uint16 is divided by 257 and rounded: it is taken for values of 0..65535, of which those below 129 become 0.
        channels: Of the graph's input.
        color: ``bgr`` is for arrays of 3 channels only.

    Returns:
        uint8 (H, W, `channels`), contiguous; the same array where it is that already.

    Raises:
        InputError: Not a numpy array, another type or shape, empty, or ``bgr`` for another number of channels.

    Example:
        >>> as_picture(np.full((4, 6, 5), 65535, np.uint16), channels=5)[0, 0].tolist()
        [255, 255, 255, 255, 255]
    """
    if channels == 3:
        return as_rgb(array, color)
    if color != "rgb":
        raise InputError(f"colour order '{color}' is for pictures of 3 channels, and this network takes {channels}")
    return _checked(array, channels, "the picture")


def load_picture(
    picture: PictureFile, channels: int = 3, *, max_pixels: int = MAX_PIXELS, strict: bool = False
) -> Decoded:
    """Read what a graph of so many channels takes from a file, or from a stack of files.

    Args:
        picture: For 3 channels a picture file as `edgeseg.images.load_image` reads it. Else a TIFF with the channels in
            one page or a page each, a ``.npy`` array (H, W, `channels`), or, for 2 and 4 channels, a PNG with alpha. Or
            a list of `channels` files of one channel each, all of one size.
        channels: Of the graph's input.
        max_pixels: Largest height x width.
        strict: Refuse damaged files.

    Returns:
        uint8 (H, W, `channels`) in the order of the file or list, and sentences on damage. 16 bits are divided by 257
        and rounded.

    Raises:
        InputError: Missing, unreadable, damaged beyond reading, of another kind or number of channels, or too large.
        UsageError: `max_pixels` is below 1.

    Example:
        >>> load_picture([folder / "labels" / "sample.png"] * 4, channels=4).image.shape
        (44, 52, 4)
    """
    check_max_pixels(max_pixels)
    if not isinstance(picture, (str, Path)):
        return _load_stack(list(picture), channels, max_pixels, strict)
    if channels == 3:
        return load_image(picture, max_pixels=max_pixels, strict=strict)
    return _load_file(picture, channels, max_pixels, strict)


def viewable(image: U8) -> U8:
    """Choose three channels to look at, as RGB: the first three, or of two channels the first one as grey.

    Args:
        image: uint8 (H, W, C).

    Returns:
        uint8 (H, W, 3), contiguous; the same array where it is that already.

    Example:
        >>> viewable(np.arange(5, dtype=np.uint8).reshape(1, 1, 5)).tolist()
        [[[0, 1, 2]]]
    """
    if image.shape[2] == 3:
        return image
    return np.ascontiguousarray(image[..., :3] if image.shape[2] >= 3 else image[..., [0, 0, 0]])


def _load_stack(files: list[Any], channels: int, max_pixels: int, strict: bool) -> Decoded:
    if not all(isinstance(file, (str, Path)) for file in files):
        raise InputError(
            "a stack is a list of paths, one file per channel; give one array as (height, width, channels)"
        )
    if len(files) != channels:
        raise InputError(f"the stack has {len(files)} files, and this network takes {channels} channels; give one each")
    planes = [_load_file(file, 1, max_pixels, strict) for file in files]
    first = planes[0].image
    for file, plane in zip(files, planes, strict=True):
        if plane.image.shape != first.shape:
            got, wanted = ("x".join(map(str, image.shape[:2])) for image in (plane.image, first))
            raise InputError(f"{_named(file)} is {got}, the first of its stack {wanted}; give files of one size")
    image = np.concatenate([plane.image for plane in planes], axis=2)
    notes = tuple(dict.fromkeys(note for plane in planes for note in plane.notes))
    return Decoded(image, tuple(note for plane in planes for note in plane.damaged), notes)


def _load_file(path: str | Path, channels: int, max_pixels: int, strict: bool) -> Decoded:
    """Read one file of so many channels: uint8 (H, W, channels)."""
    name = _named(path)
    if Path(path).suffix.lower() == ".npy":
        array = _array_in(path, name, channels, max_pixels)
        return Decoded(np.array(_checked(array, channels, name)), notes=depth_notes(array))
    data = read_file(path, name, max_pixels, max(DECODER_BYTES, 2 * channels))
    if data.startswith(_NPY):
        raise InputError(f"{name} holds a numpy array; give it the suffix .npy")
    if is_tiff(data):
        stored = read_tiff_channels(data, name, channels, max_pixels=max_pixels)
        return Decoded(to_eight_bits(stored, name), notes=depth_notes(stored))
    return _decoded(data, name, channels, max_pixels, strict)


def _decoded(data: bytes, name: str, channels: int, max_pixels: int, strict: bool) -> Decoded:
    """Decode a picture of 1 channel of any format, or a PNG with alpha."""
    header = measure(data, name)
    if header.channels != channels:
        raise InputError(
            f"{name} is a {header.format} of {header.channels} channels, expected {channels}; more than 3 channels are "
            "read from TIFF, .npy and PNG with alpha, or from a list of one file per channel"
        )
    if channels == 1:
        grey = decode(data, name, max_pixels=max_pixels, strict=strict)
        plane = to_eight_bits(np.ascontiguousarray(grey.image[..., :1]), name)
        return Decoded(plane, grey.damaged, grey.notes + depth_notes(grey.image))
    if header.format != "PNG" or channels not in _PNG_ORDER:
        raise InputError(f"{name} is a {header.format} of {channels} channels; save it as TIFF, .npy or PNG with alpha")
    read = decode(data, name, max_pixels=max_pixels, strict=strict, stored=True)
    in_file_order = np.ascontiguousarray(read.image[..., _PNG_ORDER[channels]])
    return Decoded(to_eight_bits(in_file_order, name), read.damaged, read.notes + depth_notes(in_file_order))


def _array_in(path: str | Path, name: str, channels: int, max_pixels: int) -> NDArray[Any]:
    """Map the array of a ``.npy`` file, whose size is checked against its header's, and objects refused."""
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = getattr(error, "strerror", None) or first_line(error, 120)
        raise InputError(f"cannot read {name}: {reason.lower()}; check the path") from error
    except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError) as error:
        raise InputError(
            f"{name} is no array of numbers ({first_line(error, 120)}); save it with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{name} is no array of numbers, but an archive of several; save one with numpy.save")
    if array.ndim >= 2 and array.shape[0] * array.shape[1] > max_pixels:
        size = f"{array.shape[0]}x{array.shape[1]}"
        raise InputError(
            f"{name} is {size}, above {max_pixels} pixels; make it smaller first, or allow more (max_pixels)"
        )
    return array[..., None] if channels == 1 and array.ndim == 2 else array


def _checked(array: Any, channels: int, name: str) -> U8:
    """An array of the right shape and type as contiguous uint8."""
    if not isinstance(array, np.ndarray):
        got = f"{type(array).__module__}.{type(array).__qualname__}"
        raise InputError(f"{name} must be a numpy array of uint8 (height, width, {channels}), got {got}")
    if array.ndim != 3 or array.shape[2] != channels:
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] == channels else ""
        raise InputError(
            f"{name} has shape {array.shape}, and this network takes {channels} channels, (height, width, {channels})"
            f"{hint}"
        )
    if array.size == 0:
        raise InputError(f"{name} of shape {array.shape} has no pixels")
    if array.dtype.kind == "u":
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(to_eight_bits(array, name))


def _named(path: str | Path) -> str:
    return f"picture '{one_line(path, 300)}'"
