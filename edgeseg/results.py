"""Result of a prediction: labels, optional scores, the picture, and the time of each stage. numpy and OpenCV only."""

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
    """The prediction of one picture.

    Attributes:
        labels: uint8 (H, W), uint16 above 255 classes: class index per pixel.
        names: Class names in index order.
        palette: RGB colour per class.
        image: uint8 (H, W, 3) RGB at the labels' size, or None where it was not kept.
        scores: float32 (H, W) in 0..1: probability of the chosen class (`edgeseg.postprocess.scores_from_logits`), or
            None where not asked for.
        timings: Milliseconds per stage: ``decode``, ``pre``, ``infer``, ``postprocess``.
        source: Path, URL or frame number of the picture.
        damaged: Sentences on damage of the picture's file that decoding got over; empty where no damage was recognised.
        notes: Sentences on what else the picture's file holds and was left out, such as later pages.

    Example:
        >>> Result(np.array([[0, 1]], np.uint8), ("road", "sky"), ((128, 64, 128), (70, 130, 180))).size
        (1, 2)
    """

    labels: LabelMap
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image: NDArray[np.uint8] | None = None
    scores: NDArray[np.float32] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height x width of the labels."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    def shares(self) -> dict[str, float]:
        """Compute the share of the pixels, 0..1, of each class that is present, largest first.

        Example:
            >>> result.shares()
            {'person': 0.75, 'background': 0.25}
        """
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names)) / self.labels.size
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i]) for i in order if counts[i] > 0}

    def color(self) -> NDArray[np.uint8]:
        """Draw the labels in the colours of the palette: uint8 (H, W, 3) RGB.

        Example:
            >>> result.color()[0, 0].tolist()
            [220, 20, 60]
        """
        table = np.zeros((max(256, len(self.palette)), 3), np.uint8)
        table[: len(self.palette)] = np.array(self.palette, np.uint8)
        return table[self.labels]

    def overlay(self, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Lay the coloured labels over the picture: uint8 (H, W, 3) RGB.

        Args:
            opacity: Of the colours, 0 (picture alone) to 1 (colours alone).

        Raises:
            UsageError: No picture was kept, or the opacity is outside 0..1.

        Example:
            >>> result.overlay(opacity=1.0)[0, 0].tolist()
            [220, 20, 60]
        """
        if self.image is None:
            raise UsageError("the result keeps no picture to lay colours over; predict with keep_image=True")
        if not 0.0 <= opacity <= 1.0:
            raise UsageError(f"opacity is {opacity}; it must be between 0 and 1")
        mixed: NDArray[Any] = cv2.addWeighted(self.image, 1.0 - opacity, self.color(), opacity, 0.0)
        return mixed.astype(np.uint8, copy=False)

    def cutout(self, label: int = 1, *, background: tuple[int, int, int] | None = None) -> NDArray[np.uint8]:
        """Cut the pixels of one class out of the picture.

        Args:
            label: Class index to keep.
            background: RGB colour behind it; None gives RGBA with a transparent background.

        Returns:
            uint8 (H, W, 4) RGBA, or (H, W, 3) RGB with `background`.

        Raises:
            UsageError: No picture was kept.

        Example:
            >>> result.cutout(1)[..., 3].tolist()
            [[255, 255], [255, 0]]
        """
        if self.image is None:
            raise UsageError("the result keeps no picture to cut from; predict with keep_image=True")
        inside = self.labels == label
        if background is not None:
            return np.where(inside[..., None], self.image, np.array(background, np.uint8))
        alpha = np.where(inside, 255, 0).astype(np.uint8)
        return np.dstack((self.image, alpha))

    def save(self, path: str | Path, *, kind: str = "labels") -> Path:
        """Write a picture of the result, whole or not at all.

        Args:
            path: Ends in ``.png`` (or, for ``overlay``, any format OpenCV writes).
            kind: ``labels`` (class index per pixel, 16 bits above 255 classes), ``color``, ``overlay`` or ``cutout``.

        Returns:
            The path written.

        Raises:
            UsageError: Unknown kind or format; a lossy format for labels.
            StorageError: Writing failed.

        Example:
            >>> result.save(folder / "labels.png").name
            'labels.png'
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
