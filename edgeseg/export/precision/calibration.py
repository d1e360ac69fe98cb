"""Calibration pictures: read, fitted as the device fits them, some of them held out to score by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError
from edgeseg.export.reference import read_for
from edgeseg.images import fit_image
from edgeseg.label_files import LabelFile, LabelRules, read_label_file
from edgeseg.labels import LabelMap
from edgeseg.postprocess import Region
from edgeseg.sources import pictures_at
from edgeseg.specs import ResizeRule, Size

T = TypeVar("T")

__all__ = ["Calibration", "Picture", "evenly_spaced", "held_out_within", "load_calibration", "load_pictures"]

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
        notes: How the values of the label map were read, where that is not plain.
    """

    path: Path
    image: NDArray[np.uint8]
    region: Region | None = None
    truth: LabelMap | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Pictures to calibrate on, and pictures to score by.

    Attributes:
        pictures: To calibrate on.
        held_out: To score by.
        shared: Whether the only picture had to be both.
    """

    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    shared: bool = False


def load_calibration(
    folder: Path,
    size: Size,
    rule: ResizeRule,
    *,
    labels: Path | None = None,
    label_rules: LabelRules | None = None,
    channels: int = 3,
) -> Calibration:
    """Read a folder of pictures; every fourth is held out, spread over the folder.

    Args:
        folder: Pictures; sub-folders are not looked into.
        size: Height x width of the graph's input.
        rule: The bundle's resize rule; ``none`` is read as a plain bilinear stretch.
        labels: Folder of label maps ``STEM.png``.
        label_rules: What their values mean.
        channels: Of the graph's input.

    Raises:
        InputError: No such folder, no pictures in it, one that cannot be read, or one without its label map.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of calibration pictures at '{folder}'; give one that exists")
    known: dict[str, Any]
    files, known = pictures_at(folder, channels), {"labels": labels, "label_rules": label_rules}
    if len(files) == 1:
        only = load_pictures(files, size, rule, channels=channels, **known)
        return Calibration(only, only, shared=True)
    held_out = files[_EVERY - 1 :: _EVERY] or files[-1:]
    rest = [file for file in files if file not in set(held_out)]
    return Calibration(
        load_pictures(evenly_spaced(rest, MOST_CALIBRATED), size, rule, channels=channels),
        load_pictures(evenly_spaced(held_out, MOST_HELD_OUT), size, rule, channels=channels, **known),
    )


def load_pictures(
    files: Sequence[Path],
    size: Size,
    rule: ResizeRule,
    *,
    labels: Path | None = None,
    label_rules: LabelRules | None = None,
    channels: int = 3,
) -> tuple[Picture, ...]:
    """Read and fit pictures of so many channels, and their label maps where there is a folder of them."""
    stretch = ResizeRule("stretch", "linear") if rule.mode == "none" else rule
    found = []
    for file in files:
        picture = read_for(file, channels)
        image, region = fit_image(picture, size, stretch)
        truth = None if labels is None else _truth(labels / f"{file.stem}.png", picture.shape[:2], label_rules)
        labelled: dict[str, Any] = {} if truth is None else {"truth": truth.labels, "notes": truth.notes}
        found.append(replace(Picture(file, image, region), **labelled))
    return tuple(found)


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


def _truth(file: Path, shape: tuple[int, ...], rules: LabelRules | None) -> LabelFile:
    if not file.is_file():
        raise InputError(f"there is no label map at '{file}'; expected STEM.png for every calibration picture")
    truth = read_label_file(file, rules or LabelRules())
    if truth.labels.shape != shape:
        got, expected = ("x".join(map(str, s)) for s in (truth.labels.shape, shape))
        raise InputError(f"label map '{file}' is {got}, its picture {expected}; their sizes must agree")
    return truth
