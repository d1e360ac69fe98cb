"""Pictures, videos and a stand-in for a camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

__all__ = ["FakeCapture", "flat", "write_image", "write_video"]


def flat(value: int, size: tuple[int, int] = (16, 24)) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, np.uint8)


def write_image(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), flat(value))
    return path


def write_video(path: Path, frames: int = 5, codec: str = "MJPG", *, noise: bool = False) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    random = np.random.default_rng(0)
    for index in range(frames):
        picture = flat(0, (48, 64))
        if noise:
            writer.write(random.integers(0, 256, picture.shape, dtype=np.uint8))
            continue
        picture[...] = (40 * index % 250, 0, 250 - 40 * index % 250)  # BGR: blue rises, red falls
        writer.write(picture)
    writer.release()
    return path


class FakeCapture:
    """Stands in for cv2.VideoCapture: gives `count` pictures, then nothing."""

    def __init__(self, count: int, length: float = -1.0, fps: float = 30.0) -> None:
        self.left, self.released = count, 0
        self.properties = {cv2.CAP_PROP_FRAME_COUNT: length, cv2.CAP_PROP_FPS: fps}

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.left -= 1
        return (True, flat(7)) if self.left >= 0 else (False, None)

    def get(self, which: int) -> float:
        return self.properties.get(which, 0.0)

    def release(self) -> None:
        self.released += 1
