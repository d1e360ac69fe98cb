"""What a prediction is: labels, optional scores, the picture, and where the time went. numpy and OpenCV only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.files import write_bytes
from edgeseg.labels import LabelMap

__all__ = ["Result"]


@dataclass(frozen=True)
class Result:
    """One image's prediction.

    Attributes:
        labels: uint8 (H, W), uint16 above 255 classes: class index per pixel.
        names: Class names in index order.
        palette: RGB colour per class.
        image: uint8 (H, W, 3) RGB at the labels' size, or None where it was not kept.
        scores: float32 (H, W) in 0..1: probability of the chosen class, or None where not asked for.
        timings: Milliseconds per stage: ``decode``, ``pre``, ``infer``, ``postprocess``.
        source: Path, URL or frame number the image came from.
        damaged: Sentences on damage of the image's file that decoding got over; empty where it is whole as far as can
            be told.
    """

    labels: LabelMap
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image: NDArray[np.uint8] | None = None
    scores: NDArray[np.float32] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    damaged: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height x width of the labels."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    def shares(self) -> dict[str, float]:
        """Class name -> share of the pixels, 0..1, present classes only, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names)) / self.labels.size
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i]) for i in order if counts[i] > 0}

    def color(self) -> NDArray[np.uint8]:
        """Labels as an RGB picture in the palette: uint8 (H, W, 3)."""
        table = np.zeros((max(256, len(self.palette)), 3), np.uint8)
        table[: len(self.palette)] = np.array(self.palette, np.uint8)
        return table[self.labels]

    def overlay(self, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """The picture with the coloured labels over it: uint8 RGB (H, W, 3).

        Args:
            opacity: Of the colours, 0 (picture alone) to 1 (colours alone).

        Raises:
            UsageError: No picture was kept, or the opacity is outside 0..1.
        """
        if self.image is None:
            raise UsageError("the result keeps no picture to lay colours over; predict with keep_image=True")
        if not 0.0 <= opacity <= 1.0:
            raise UsageError(f"opacity is {opacity}; it must be between 0 and 1")
        mixed: NDArray[Any] = cv2.addWeighted(self.image, 1.0 - opacity, self.color(), opacity, 0.0)
        return mixed.astype(np.uint8, copy=False)

    def cutout(self, label: int = 1, *, background: tuple[int, int, int] | None = None) -> NDArray[np.uint8]:
        """The pixels of one class cut out of the picture.

        Args:
            label: Class index to keep.
            background: RGB colour behind it; None gives RGBA with a transparent background.

        Returns:
            uint8 (H, W, 4) RGBA, or (H, W, 3) RGB with `background`.

        Raises:
            UsageError: No picture was kept.
        """
        if self.image is None:
            raise UsageError("the result keeps no picture to cut from; predict with keep_image=True")
        inside = self.labels == label
        if background is not None:
            return np.where(inside[..., None], self.image, np.array(background, np.uint8))
        alpha = np.where(inside, 255, 0).astype(np.uint8)
        return np.dstack((self.image, alpha))

    def save(self, path: str | Path, *, kind: str = "labels") -> Path:
        """Write a picture of the result; the file appears whole or not at all.

        Args:
            path: Ends in ``.png`` (or, for ``overlay``, any format OpenCV writes).
            kind: ``labels`` (class index per pixel, 16 bits above 255 classes), ``color``, ``overlay`` or ``cutout``.

        Returns:
            The path written.

        Raises:
            UsageError: Unknown kind or format; a lossy format for labels.
            StorageError: Writing failed.
        """
        file = Path(path)
        makers = {"labels": lambda: self.labels, "color": self.color, "overlay": self.overlay, "cutout": self.cutout}
        if kind not in makers:
            raise UsageError(f"kind '{kind}' is none of {', '.join(makers)}")
        if kind in ("labels", "cutout") and file.suffix.lower() != ".png":
            raise UsageError(f"{kind} must be written without loss; name the file {file.with_suffix('.png').name}")
        picture = makers[kind]()
        if picture.ndim == 3:
            picture = picture[..., [2, 1, 0, 3][: picture.shape[2]]]
        try:
            done, data = cv2.imencode(file.suffix.lower(), np.ascontiguousarray(picture))
        except cv2.error as error:
            raise UsageError(f"cannot write pictures as '{file.suffix}'; use .png or .jpg") from error
        if not done:
            raise UsageError(f"cannot write pictures as '{file.suffix}'; use .png or .jpg")
        write_bytes(file, data.tobytes())
        return file
