"""The Predictor's stages before the engine: read a picture, bring it to the graph's size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.images import Decoded, depth_notes, fit_image
from edgeseg.manifest import Manifest
from edgeseg.predictor.config import Output, PredictorConfig
from edgeseg.predictor.jobs import Job
from edgeseg.sources import Frame
from edgeseg.specs import Size, check_divisor
from edgeseg.stacks import PictureFile, as_picture, load_picture, name_of, viewable
from edgeseg.timing import ms_since

__all__ = ["Color", "Preparer"]

Color = Literal["rgb", "bgr"]


class Preparer:
    """Turns pictures into jobs for the engine.

    Args:
        manifest: Of the bundle.
        config: Of the Predictor.
    """

    def __init__(self, manifest: Manifest, config: PredictorConfig) -> None:
        self._manifest, self._config = manifest, config
        self._channels = manifest.input.image_channels

    def load(self, picture: PictureFile | NDArray[Any], color: Color, output: Output | None = None) -> Job:
        """Read a file or a stack of files, or take an array, and prepare it; `output` as in `prepare`.

        Raises:
            InputError: A file or array that is no picture.
            SizeError: A size that the graph does not take.
        """
        start = time.perf_counter()
        if isinstance(picture, (str, Path, list, tuple)):
            config = self._config
            if not isinstance(picture, (str, Path)) and self._manifest.input.channels == 1:
                raise InputError("a list of files is one per channel, and this network takes 1; give the path alone")
            decoded = load_picture(picture, self._channels, max_pixels=config.max_pixels, strict=config.strict)
            return self._told(self.prepare(decoded.image, name_of(picture), ms_since(start), output), decoded)
        image = as_picture(picture, self._channels, color)
        if self._config.keep_image and np.may_share_memory(image, picture):
            image = image.copy()  # the result must not change when the caller fills the buffer again
        job = self.prepare(image, "", ms_since(start), output)
        job.notes = depth_notes(picture)
        return job

    def take(self, frame: Frame) -> Job:
        """Prepare a frame of a source.

        Raises:
            EdgesegError: The frame's own error.
            SizeError: A size that the graph does not take.
        """
        if frame.error is not None or frame.image is None:
            raise frame.error or UsageError(f"frame {frame.index} holds neither a picture nor an error")
        return self._told(self.prepare(frame.image, frame.name, frame.decode_ms), frame)

    @staticmethod
    def _told(job: Job, file: Decoded | Frame) -> Job:
        """Let a job tell what is known of the picture's file."""
        job.damaged, job.notes = file.damaged, file.notes
        return job

    def prepare(self, image: NDArray[np.uint8], source: str, decode_ms: float, output: Output | None = None) -> Job:
        """Resize a picture to the graph's input, and decide the size of its labels.

        Args:
            image: uint8 (H, W, `InputSpec.image_channels`).
            source: Path or name of the picture.
            decode_ms: Milliseconds that decoding took.
            output: Size of the labels; the Predictor's own setting where none is given.

        Raises:
            InputError: Another number of channels.
            SizeError: A size that the graph does not take.
        """
        start = time.perf_counter()
        if image.shape[2:] != (self._channels,):
            raise InputError(
                f"the picture has shape {image.shape}, and this network takes {self._channels} channels; open its "
                f"source with channels={self._channels}"
            )
        wanted = output or self._config.output
        source_size = (int(image.shape[0]), int(image.shape[1]))
        input_size = self._input_size(source_size)
        resized, region = fit_image(image, input_size, self._manifest.resize)
        if region is not None and region.height == input_size[0] and region.width == input_size[1]:
            region = None  # no bars
        if wanted == "network":
            size, region, image = input_size, None, resized
        else:
            size = wanted if isinstance(wanted, tuple) else source_size
        timings = {"decode": decode_ms, "pre": ms_since(start)}
        picture = viewable(image) if self._config.keep_image else None
        return Job(source, resized, region, size, picture, timings)

    def _input_size(self, source: Size) -> Size:
        """Choose the height x width to give the graph for a picture of size `source`."""
        manifest = self._manifest
        if self._config.input_size is not None:
            return self._config.input_size
        if manifest.dynamic and manifest.resize.mode == "none":
            check_divisor(manifest.name, source, manifest.divisor)
            return source
        return manifest.input_size
