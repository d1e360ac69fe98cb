"""Pictures that Pillow decodes: HEIC by a plugin of it, AVIF and GIF where OpenCV was built without them.

Pillow gives pictures upright or says in their EXIF how they must be turned; both are served by one call, so none is
turned twice.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg._optional import is_installed
from edgeseg.decoding._header import DAMAGED, HeaderError, PictureHeader
from edgeseg.text import first_line

__all__ = ["BY_PILLOW", "by_pillow", "check_heic_plugin", "measured_by_pillow"]

BY_PILLOW = {"HEIC": "HEIF", "AVIF": "AVIF", "GIF": "GIF"}
"""Formats that Pillow may decode here, and what Pillow calls them."""

_HEIC_PLUGINS = ("pillow_heif", "pi_heif")
_WANTED = {
    "HEIC": "pillow-heif; install it with pip install pillow-heif",
    "AVIF": "Pillow 11.3 or newer where OpenCV has no AVIF; install it with pip install 'Pillow>=11.3'",
    "GIF": "Pillow where OpenCV has no GIF; install it with pip install 'edgeseg[pillow]'",
}


def check_heic_plugin() -> None:
    """Check that Pillow has a plugin for HEIC.

    Raises:
        HeaderError: There is none.
    """
    if not any(map(_is_there, _HEIC_PLUGINS)):
        raise _missing("HEIC")


def measured_by_pillow(data: bytes, picture_format: str) -> PictureHeader:
    """Take the size of the first picture from Pillow, which does not decode it for that.

    Raises:
        HeaderError: Pillow or its plugin is missing, or does not open the file.
    """
    with _opened(data, picture_format) as picture:
        return PictureHeader(picture_format, picture.height, picture.width, 4, 8, 16)


def by_pillow(data: bytes, header: PictureHeader) -> NDArray[np.uint8]:
    """Decode the first picture of a file, upright.

    Args:
        data: The whole file.
        header: What was measured; its format is one of `BY_PILLOW`.

    Returns:
        uint8 (H, W, 3) RGB; alpha is dropped.

    Raises:
        HeaderError: Pillow or its plugin is missing, or the picture is not of the size or kind that was measured.
    """
    from PIL import ImageOps

    with _opened(data, header.format) as picture:
        if picture.width * picture.height > header.pixels:  # fewer where the file says how to crop it
            raise HeaderError(DAMAGED)
        if picture.mode.startswith(("I", "F")):
            raise HeaderError(f"holds pixels of Pillow's mode {picture.mode}; scale it to uint8 0..255 first")
        upright: Any = ImageOps.exif_transpose(picture)
        return np.array(upright.convert("RGB"), np.uint8)


@contextlib.contextmanager
def _opened(data: bytes, picture_format: str) -> Iterator[Any]:
    kind = BY_PILLOW[picture_format]
    if not _registered(kind):
        raise _missing(picture_format)
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many pixels, which are counted here
        try:
            picture = Image.open(io.BytesIO(data), formats=[kind])
        except UnidentifiedImageError:
            raise HeaderError(DAMAGED) from None
        with picture:
            yield picture


def _is_there(package: str) -> bool:
    return package in sys.modules or is_installed(package)


def _registered(kind: str) -> bool:
    """Tell whether Pillow opens a format, after loading the plugin for it."""
    if not is_installed("PIL"):
        return False
    from PIL import Image

    Image.init()
    if kind == "HEIF" and kind not in Image.OPEN:
        plugin = next(name for name in _HEIC_PLUGINS if _is_there(name))
        _loaded(plugin).register_heif_opener()
    if kind == "AVIF" and kind not in Image.OPEN and _is_there("pillow_avif"):
        _loaded("pillow_avif")
    return kind in Image.OPEN


def _loaded(plugin: str) -> Any:
    try:
        return importlib.import_module(plugin)
    except Exception as error:
        raise HeaderError(
            f"needs the package {plugin}, which is installed but does not import ({first_line(error, 120)}); "
            "install it again"
        ) from error


def _missing(picture_format: str) -> HeaderError:
    return HeaderError(
        f"is a picture of format {picture_format}, which needs {_WANTED[picture_format]}, "
        "or save the picture again as PNG or JPEG"
    )
