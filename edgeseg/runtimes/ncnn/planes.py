"""Pictures as float planes, on the host: ncnn's graph has no uint8 input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.specs import GREY, InputSpec

__all__ = ["Planes"]


class Planes:
    """Normalise pictures as the graphs of other targets do, to the last bit.

    A channel has 256 values at most, so each is looked up.

    Args:
        spec: Channel order, mean, std and scale.
    """

    def __init__(self, spec: InputSpec) -> None:
        self._swap, self._grey = spec.channel_order == "bgr", spec.channels == 1
        factor = spec.scale / np.array(spec.std, np.float64)
        offset = -np.array(spec.mean, np.float64) * factor
        self._factor, self._offset = factor.astype(np.float32), offset.astype(np.float32)
        values = np.arange(256, dtype=np.float32)
        self._tables = values * self._factor[:, None] + self._offset[:, None]

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalise one picture.

        Args:
            picture: uint8 (H, W, `InputSpec.image_channels`).

        Returns:
            float32 (C, H, W), C-contiguous, in the network's channel order.
        """
        if self._grey:
            red, green, blue = np.moveaxis(picture.astype(np.float32), 2, 0)
            grey = green + GREY[0] * (red - green) + GREY[2] * (blue - green)
            return np.asarray(grey * self._factor + self._offset, np.float32)[None]
        planes = np.empty((len(self._tables), *picture.shape[:2]), np.float32)
        split = cv2.split(picture)
        for channel, plane in enumerate(reversed(split) if self._swap else split):
            cv2.LUT(plane, self._tables[channel], dst=planes[channel])
        return planes
