"""Calibration pictures: read, fitted as the device fits them, some of them held out to score by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError
from edgeseg.export.reference import load_for
from edgeseg.images import MAX_PIXELS, fit_image
from edgeseg.labelled import LabelledPictures, LabelReader, check_sizes, shared_label_maps
from edgeseg.labels import LabelMap
from edgeseg.postprocess import Region
from edgeseg.sources import list_images
from edgeseg.specs import ResizeRule, Size

T = TypeVar("T")
Pair: TypeAlias = tuple[Path, Path | None]
"""A picture and its label map."""

__all__ = [
    "Calibration",
    "Picture",
    "evenly_spaced",
    "held_out_within",
    "list_calibration",
    "load_calibration",
    "load_pictures",
]

MOST_CALIBRATED = 64
"""Pictures calibrated on at the most: more change the ranges little."""

MOST_HELD_OUT = 200
"""Pictures scored on at the most: each is run at every measurement."""

MOST_LOGIT_BYTES = 1 << 30
"""Memory that fp32 PyTorch's logits of the held-out pictures may take: fewer are used where one picture's are large."""

_EVERY = 4
"""One picture in so many is held out."""


@dataclass(frozen=True)
class Picture:
    """A picture at the network's size.

    Attributes:
        path: Its file.
        image: uint8 (H, W, channels).
        region: Where it lies in a letterbox, else None.
        truth: Label map at its own size, or None.
        void: Label of void in it, or None.
        notes: What is to be known of its files: damage, and how label values were read where that is not plain.
    """

    path: Path
    image: NDArray[np.uint8]
    region: Region | None = None
    truth: LabelMap | None = None
    void: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Pictures to calibrate on, and pictures to score by.

    Attributes:
        pictures: To calibrate on.
        held_out: To score by.
        shared: Whether the only picture had to be both.
        reader: What read the label maps; None without label maps.
    """

    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    shared: bool = False
    reader: LabelReader | None = None


def list_calibration(data: Path | LabelledPictures, *, recursive: bool = False, channels: int = 3) -> list[Pair]:
    """List the calibration pictures, each with its label map where there are some.

    Args:
        data: Folder of pictures, or pictures with label maps.
        recursive: Also take those of a folder's subfolders.
        channels: Of the pictures.

    Raises:
        InputError: No such folder, no pictures in it, no label map for any, or one label map for two pictures.
    """
    if isinstance(data, LabelledPictures):
        pairs = data.pairs(channels)
        for reason in shared_label_maps(pairs).values():
            raise InputError(reason)
        return list(pairs)
    if not data.is_dir():
        raise InputError(f"there is no folder of calibration pictures at '{data}'; give one that exists")
    pictures = list_images(data, recursive=recursive, deeper="--calib-recursive", channels=channels)
    return [(picture, None) for picture in pictures]


def load_calibration(
    pairs: Sequence[Pair], size: Size, rule: ResizeRule, reader: LabelReader | None = None, *, channels: int = 3
) -> Calibration:
    """Read calibration pictures; every fourth is held out, spread over the folder.

    Args:
        pairs: Of `list_calibration`.
        size: Height x width of the graph's input.
        rule: The bundle's resize rule; ``none`` is read as a plain bilinear stretch.
        reader: Reads the label maps of the held-out pictures.
        channels: Of the graph's input.

    Raises:
        InputError: A picture that cannot be read, or one without its label map.
    """
    if len(pairs) == 1:
        only = load_pictures(pairs, size, rule, reader, channels=channels)
        return Calibration(only, only, shared=True, reader=reader)
    held_out = pairs[_EVERY - 1 :: _EVERY] or pairs[-1:]
    rest = [pair for pair in pairs if pair not in set(held_out)]
    return Calibration(
        load_pictures(evenly_spaced(rest, MOST_CALIBRATED), size, rule, channels=channels),
        load_pictures(evenly_spaced(held_out, MOST_HELD_OUT), size, rule, reader, channels=channels),
        reader=reader,
    )


def load_pictures(
    pairs: Sequence[Pair], size: Size, rule: ResizeRule, reader: LabelReader | None = None, *, channels: int = 3
) -> tuple[Picture, ...]:
    """Read and fit pictures of so many channels, and their label maps where there is a reader of them."""
    stretch = ResizeRule("stretch", "linear") if rule.mode == "none" else rule
    found = []
    for file, labelled in pairs:
        max_pixels, strict = (MAX_PIXELS, False) if reader is None else (reader.max_pixels, reader.strict)
        decoded = load_for(file, channels, max_pixels=max_pixels, strict=strict)
        image, region = fit_image(decoded.image, size, stretch)
        notes = tuple(f"'{file}' is damaged: {damage}" for damage in decoded.damaged)
        picture = Picture(file, image, region, notes=notes)
        found.append(picture if reader is None else _labelled(picture, labelled, decoded.image.shape[:2], reader))
    return tuple(found)


def _labelled(picture: Picture, file: Path | None, shape: tuple[int, ...], reader: LabelReader) -> Picture:
    """Add its label map to a picture."""
    if file is None or not file.is_file():
        raise InputError(f"there is no label map at '{file}'; every calibration picture that is scored needs one")
    read = reader.read(file)
    damaged = tuple(f"'{file}' is damaged: {damage}" for damage in read.damaged)
    notes = (*picture.notes, *read.notes, *damaged, *check_sizes(file, read.labels.shape, shape))
    return replace(picture, truth=read.labels, void=read.void, notes=notes)


def held_out_within(pictures: Sequence[Picture], logits: int) -> tuple[Picture, ...]:
    """Choose held-out pictures whose logits fit into memory, evenly spread, and 16 at least.

    Args:
        pictures: Held-out pictures.
        logits: Numbers in the fp32 logits of one picture.
    """
    most = max(16, MOST_LOGIT_BYTES // (4 * logits))
    return tuple(evenly_spaced(pictures, most))


def evenly_spaced(files: Sequence[T], most: int) -> list[T]:
    """Choose at most `most` of the files, evenly spread, in order."""
    if len(files) <= most:
        return list(files)
    return [files[index * len(files) // most] for index in range(most)]
