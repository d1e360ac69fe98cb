"""The Predictor's stages before the engine: read a picture, bring it to the graph's size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.images import fit_image
from edgeseg.manifest import Manifest
from edgeseg.postprocess import Region
from edgeseg.predictor.config import PredictorConfig
from edgeseg.predictor.jobs import GraphOutput, Job
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
        ends_in_labels: Whether the graph has an output ``labels`` beside its logits.
    """

    def __init__(self, manifest: Manifest, config: PredictorConfig, ends_in_labels: bool) -> None:
        self._manifest, self._config, self._ends_in_labels = manifest, config, ends_in_labels
        self._channels = manifest.input.image_channels

    def load(self, picture: PictureFile | NDArray[Any], color: Color) -> Job:
        """Read a file or a stack of files, or take an array, and prepare it.

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
            return self.prepare(decoded.image, name_of(picture), ms_since(start), decoded.damaged)
        image = as_picture(picture, self._channels, color)
        if self._config.keep_image and np.may_share_memory(image, picture):
            image = image.copy()  # the result must not change when the caller fills the buffer again
        return self.prepare(image, "", ms_since(start))

    def take(self, frame: Frame) -> Job:
        """Prepare a frame of a source.

        Raises:
            EdgesegError: The frame's own error.
            SizeError: A size that the graph does not take.
        """
        if frame.error is not None or frame.image is None:
            raise frame.error or UsageError(f"frame {frame.index} holds neither a picture nor an error")
        return self.prepare(frame.image, frame.name, frame.decode_ms, frame.damaged)

    def prepare(self, image: NDArray[np.uint8], source: str, decode_ms: float, damaged: tuple[str, ...] = ()) -> Job:
        """Resize a picture to the graph's input, and decide which output of the graph to take.

        Args:
            image: uint8 (H, W, `InputSpec.image_channels`).
            source: Path or name of the picture.
            decode_ms: Milliseconds that decoding took.
            damaged: Sentences on damage of the picture's file.

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
        output = self._config.output
        source_size = (int(image.shape[0]), int(image.shape[1]))
        input_size = self._input_size(source_size)
        resized, region = fit_image(image, input_size, self._manifest.resize)
        if region is not None and region.height == input_size[0] and region.width == input_size[1]:
            region = None  # no bars
        if output == "network":
            size, region, image = input_size, None, resized
        else:
            size = output if isinstance(output, tuple) else source_size
        graph_output = self._graph_output(input_size, size, region)
        timings = {"decode": decode_ms, "pre": ms_since(start)}
        picture = viewable(image) if self._config.keep_image else None
        return Job(source, resized, region, size, graph_output, picture, timings, damaged)

    def _input_size(self, source: Size) -> Size:
        """Choose the height x width to give the graph for a picture of size `source`."""
        manifest = self._manifest
        if self._config.input_size is not None:
            return self._config.input_size
        if manifest.dynamic and manifest.resize.mode == "none":
            check_divisor(manifest.name, source, manifest.divisor)
            return source
        return manifest.input_size

    def _graph_output(self, input_size: Size, size: Size, region: Region | None) -> GraphOutput:
        """Choose the graph's labels where they are exactly the labels asked for, else its logits."""
        manifest = self._manifest
        same = input_size == manifest.input_size and size == manifest.label_size and region is None
        return "labels" if same and self._ends_in_labels and not self._config.scores else "logits"
