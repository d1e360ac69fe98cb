"""What an export is compared with: fp32 PyTorch on the same pictures, before any rewrite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from edgeseg.bundle import Parity
from edgeseg.errors import EdgesegError, ExportError
from edgeseg.export.deploy import DeployNetwork
from edgeseg.images import MAX_PIXELS, Decoded, fit_image
from edgeseg.labels import LabelMap, as_label_map
from edgeseg.metrics import agreement
from edgeseg.postprocess import labels_from_logits, undo_resize
from edgeseg.runtimes import Session, device_labelling
from edgeseg.specs import PostprocessSpec, ResizeRule, Size
from edgeseg.stacks import load_picture
from edgeseg.text import first_line

__all__ = [
    "ParitySet",
    "at_size_of",
    "before_resize",
    "compare",
    "compare_outputs",
    "edge_pictures",
    "load_for",
    "logit_error",
    "parity_set",
    "read_for",
    "self_test_pair",
    "shipped_sample",
]

Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]
"""Runs uint8 (N, H, W, channels) and gives the graph's outputs by name."""

_SEED = 20260101
_MOST_SAMPLE_PIXELS = 1 << 20


@dataclass(frozen=True)
class ParitySet:
    """Pictures at the network's size and what fp32 PyTorch makes of them.

    Attributes:
        images: uint8 (H, W, channels), the sample first.
        logits: float32 (C, h, w) per picture.
        labels: (H, W) per picture, at the network's size.
    """

    images: tuple[NDArray[np.uint8], ...]
    logits: tuple[NDArray[np.float32], ...]
    labels: tuple[LabelMap, ...]

    @property
    def logit_range(self) -> float:
        """Largest minus smallest logit over all pictures."""
        return float(max(x.max() for x in self.logits) - min(x.min() for x in self.logits))

    def labelled(self, postprocess: PostprocessSpec) -> ParitySet:
        """The same logits, with the labels of another postprocessing."""
        sizes = [(labels.shape[0], labels.shape[1]) for labels in self.labels]
        pairs = zip(self.logits, sizes, strict=True)
        return replace(self, labels=tuple(labels_from_logits(x, size, postprocess=postprocess) for x, size in pairs))


def shipped_sample() -> Path:
    """The picture that ships with edgeseg (Eileen Collins, NASA, public domain), 512x512."""
    return Path(str(resources.files("edgeseg"))) / "data" / "astronaut.png"


def read_for(path: Path, channels: int) -> NDArray[np.uint8]:
    """Read a picture as `load_for` does: uint8 (H, W, `channels`)."""
    return load_for(path, channels).image


def load_for(path: Path, channels: int, *, max_pixels: int = MAX_PIXELS, strict: bool = False) -> Decoded:
    """Read a picture for a graph of so many channels, and describe its damage.

    The picture that ships with edgeseg stands for any number of channels: red, green and blue in turn, each round
    mirrored, upside down or inverted, so that no two of the first 24 channels are equal.

    Raises:
        InputError: It cannot be read, or has another number of channels.

    Example:
        >>> load_for(shipped_sample(), 5).image.shape
        (512, 512, 5)
    """
    if channels == 3 or path != shipped_sample():
        return load_picture(path, channels, max_pixels=max_pixels, strict=strict)
    photograph = load_picture(path).image
    turned = [photograph, photograph[:, ::-1], photograph[::-1], photograph[::-1, ::-1]]
    turned += [255 - picture for picture in turned]
    return Decoded(np.stack([turned[k // 3 % 8][..., k % 3] for k in range(channels)], axis=2))


def parity_set(
    network: DeployNetwork,
    size: Size,
    resize: ResizeRule,
    postprocess: PostprocessSpec,
    pictures: Sequence[Path],
    *,
    synthetic: bool = True,
) -> ParitySet:
    """Run fp32 PyTorch on pictures and on two edge cases: noise, and a ramp with a saturated block.

    Args:
        network: The network before fusion, in float32.
        size: Height x width of the network's input.
        resize: How a picture becomes its input.
        postprocess: How logits become labels.
        pictures: Files; the first is the sample.
        synthetic: With the two edge cases; a lowered precision is scored on real pictures only.

    Raises:
        InputError: A picture cannot be read.
        ExportError: A logit is not a finite number.
    """
    channels = network.image_channels
    images = [_fitted(path, size, resize, channels) for path in pictures]
    images += [_noise(size, channels), _ramp(size, channels)] if synthetic else []
    logits = [_reference_logits(network, image) for image in images]
    if not all(np.isfinite(x).all() for x in logits):
        raise ExportError(
            "fp32 PyTorch gives logits that are not finite numbers; check the weights, and mean and std of the input"
        )
    labels = [labels_from_logits(x, size, postprocess=postprocess) for x in logits]
    return ParitySet(tuple(images), tuple(logits), tuple(labels))


def self_test_pair(
    network: DeployNetwork,
    size: Size,
    resize: ResizeRule,
    postprocess: PostprocessSpec,
    path: Path,
    *,
    logit_size: Size | None = None,
) -> tuple[NDArray[np.uint8], LabelMap]:
    """A picture for the self test and the labels of fp32 PyTorch at the picture's own size.

    The picture has another size and shape than the network's input, so that a wrong resize rule, filter or padding
    shows; where the rule is to resize nothing, it has the network's.

    Args:
        network: The network before fusion, in float32.
        size: Height x width of the network's input.
        resize: How a picture becomes its input.
        postprocess: How logits become labels.
        path: The picture file; a large one is made smaller.
        logit_size: Height x width of the logits before the network's last resize, where that was peeled off.

    Returns:
        uint8 (H, W, channels), and labels (H, W).
    """
    picture = read_for(path, network.image_channels)
    if resize.mode == "none":
        picture = fit_image(picture, size, ResizeRule("stretch", "linear"))[0]
    elif _shape_of(picture, size) or picture.shape[0] * picture.shape[1] > _MOST_SAMPLE_PIXELS:
        other = (max(8, 7 * size[0] // 8 + 1), max(8, 3 * size[1] // 4 + 1))
        picture = fit_image(picture, other, ResizeRule("stretch", "area"))[0]
    fitted, region = fit_image(picture, size, resize)
    logits = before_resize(_reference_logits(network, fitted), logit_size, postprocess)
    return picture, labels_from_logits(
        logits, (picture.shape[0], picture.shape[1]), postprocess=postprocess, region=region
    )


def before_resize(logits: NDArray[np.float32], size: Size | None, postprocess: PostprocessSpec) -> NDArray[np.float32]:
    """The logits (C, h, w) that the bundle's graph gives, where PyTorch's last resize was peeled off of it."""
    if size is None or logits.shape[1:] == size:
        return logits
    return undo_resize(logits, size, align_corners=postprocess.align_corners)


def _shape_of(picture: NDArray[np.uint8], size: Size) -> bool:
    """Whether a picture has about the shape of `size`, so that stretching and letterboxing it are the same."""
    return bool(abs(picture.shape[0] * size[1] / (picture.shape[1] * size[0]) - 1.0) < 0.02)


def compare(
    target: str, session: Session, expected: ParitySet, postprocess: PostprocessSpec, *, batch: int = 1
) -> Parity:
    """Run a session on the parity pictures and compare logits and labels with fp32 PyTorch's.

    Labels of an engine that labels on its device are compared as they come; otherwise the exact postprocessing makes
    them.
    """
    labelling = device_labelling(session)
    height, width = expected.labels[0].shape

    def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        outputs = session.run(image)
        if labelling is None:
            return outputs
        return {**outputs, "labels": np.stack(labelling.device_labels(image, [((height, width), None)] * len(image)))}

    return compare_outputs(target, run, session.info.engine, expected, postprocess, batch=batch)


def compare_outputs(
    target: str, run: Run, engine: str, expected: ParitySet, postprocess: PostprocessSpec, *, batch: int = 1
) -> Parity:
    """As `compare`, for anything that gives ``logits`` (and ``labels``) of uint8 (N, H, W, channels).

    A batch holds different pictures, so that a graph that mixes them is found out.
    """
    differing = pixels = 0
    worst = 0.0
    count = len(expected.images)
    for first in range(count):
        chosen = [(first + index) % count for index in range(batch)]
        out = run(np.stack([expected.images[i] for i in chosen]))
        for index, i in enumerate(chosen):
            logits, wanted = out["logits"][index], expected.labels[i]
            worst = max(worst, logit_error(logits[None], expected.logits[i], postprocess))
            size = (wanted.shape[0], wanted.shape[1])
            labels = out["labels"][index] if "labels" in out else None
            made = labels_from_logits(logits, size, postprocess=postprocess) if labels is None else as_label_map(labels)
            wrong, total = agreement(wanted, made)
            differing, pixels = differing + wrong, pixels + total
    return Parity(target, pixels, differing, worst, expected.logit_range, count, engine)


def logit_error(got: NDArray[np.float32], expected: NDArray[np.float32], postprocess: PostprocessSpec) -> float:
    """Largest difference of logits (N, C, h, w) from (C, H, W); resized first where a resize was peeled off.

    Infinite where a value is not a number.
    """
    error = float((at_size_of(expected, got, postprocess) - torch.from_numpy(expected)).abs().max())
    return error if math.isfinite(error) else math.inf


def at_size_of(expected: NDArray[np.float32], got: NDArray[Any], postprocess: PostprocessSpec) -> torch.Tensor:
    """Logits (N, C, h, w) at the size of (C, H, W), which is larger where a trailing resize was peeled off."""
    maps = torch.from_numpy(got)
    size = expected.shape[1:]
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=postprocess.align_corners)


def _reference_logits(network: DeployNetwork, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        with torch.inference_mode():
            logits = network(torch.from_numpy(image[None].copy()))
    except EdgesegError:
        raise
    except Exception as error:  # the user's own code
        raise ExportError(f"fp32 PyTorch fails on a picture that it is compared on: {first_line(error)}") from error
    result: NDArray[Any] = logits[0].float().numpy()
    return result.astype(np.float32, copy=False)


def _fitted(path: Path, size: Size, resize: ResizeRule, channels: int) -> NDArray[np.uint8]:
    rule = ResizeRule("stretch", "linear") if resize.mode == "none" else resize
    return fit_image(read_for(path, channels), size, rule)[0]


def edge_pictures(size: Size, channels: int) -> dict[str, NDArray[np.uint8]]:
    """Pictures uint8 (H, W, `channels`) that differ as far as pictures can, by what a sentence calls them.

    Args:
        size: Height x width.
        channels: Of the graph's input.
    """
    black = np.zeros((*size, channels), np.uint8)
    other = {"noise": _noise(size, channels), "a ramp": _ramp(size, channels)}
    return {"a black picture": black, "a white picture": black + 255, **other}


def _noise(size: Size, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(_SEED).integers(0, 256, (*size, channels), dtype=np.uint8)


def _ramp(size: Size, channels: int) -> NDArray[np.uint8]:
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    planes = (255 * x / max(1, width - 1), 255 * y / max(1, height - 1), 127.5 * (1 + np.sin(x / 7) * np.cos(y / 5)))
    image = np.stack([np.roll(planes[k % 3], 5 * (k // 3), axis=k % 2) for k in range(channels)], axis=-1)
    image = image.astype(np.uint8)
    image[: height // 4, : width // 4] = 255
    image[-(height // 4) :, -(width // 4) :] = 0
    return image
