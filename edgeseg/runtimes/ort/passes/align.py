"""Channels in numbers that kernels are written for."""

from __future__ import annotations

from typing import ClassVar, Literal

import onnx

from edgeseg.export.passes._base import Pass
from edgeseg.export.precision.ort.align import align_channels

__all__ = ["AlignChannels"]


class AlignChannels(Pass):
    """Let convolutions give a multiple of 16 channels (of 4, for a handful); no number of the network changes."""

    kind: ClassVar[Literal["exact", "rounding"]] = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        aligned = align_channels(model)
        return None if aligned == model else aligned
