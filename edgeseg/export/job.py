"""One export, everything about it known and checked before the work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import UsageError
from edgeseg.export.channels import settle_channels
from edgeseg.export.config import ExportConfig
from edgeseg.export.deploy import DeployNetwork, check_normalisation
from edgeseg.export.inspect import inspect_network
from edgeseg.export.output_range import OutputRange
from edgeseg.export.passes import default_passes
from edgeseg.export.precision.calibration import Calibration, Pair, list_calibration, load_calibration
from edgeseg.export.precision.int8 import require_nncf
from edgeseg.export.reference import ParitySet, parity_set, read_for, shipped_sample
from edgeseg.export.user_code import Line
from edgeseg.labelled import LabelledPictures
from edgeseg.labels import LabelSet, label_set
from edgeseg.models.count import count_macs, count_parameters
from edgeseg.models.source import NetworkSource
from edgeseg.models.spec import ModelSpec
from edgeseg.sources import passed_over, pictures_at
from edgeseg.specs import PostprocessSpec, Size, check_divisor
from edgeseg.text import one_line

__all__ = ["ExportJob", "noise", "prepare_job"]


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """A network, what is to be done with it, and on which pictures.

    Attributes:
        source: The network and its conventions.
        config: The options.
        name: Of the bundle.
        size: Height x width of the graph's input.
        channels: Of the logits.
        logit_size: Height x width of the logits that the module returns.
        labels: Names and colours of the classes.
        pictures: Files to verify on; the first is the sample.
        take: Path of the logits in what the module returns; empty where that is the logits alone.
        notes: Sentences about the network that the user must see.
        readings: Lines of the user's code that took values out of tensors when the network was looked at.
        calibration: Calibration pictures, where a folder of them was given.
        seen: Range of the logits on the pictures that the network was looked at with.
    """

    source: NetworkSource
    config: ExportConfig
    name: str
    size: Size
    channels: int
    logit_size: Size
    labels: LabelSet
    pictures: tuple[Path, ...]
    take: str = ""
    notes: tuple[str, ...] = ()
    readings: tuple[Line, ...] = ()
    calibration: Calibration | None = None
    seen: OutputRange | None = None

    @property
    def spec(self) -> ModelSpec:
        """The network's conventions."""
        return self.source.spec

    @property
    def batch(self) -> int:
        """Batch of the graph."""
        return self.config.batch

    @property
    def label_size(self) -> Size:
        """Height x width of the labels that graphs for programs without edgeseg end in."""
        return self.config.label_size or self.size

    @cached_property
    def reference(self) -> DeployNetwork:
        """Fp32 PyTorch before any folding, which every graph is compared with."""
        return DeployNetwork(self.source.module, self.spec.input, self.take)

    @cached_property
    def noise(self) -> NDArray[np.uint8]:
        """The batch of pictures, uint8 (N, H, W, channels), that rewrites of the graph are proven on."""
        return noise((self.batch, *self.size, self.spec.input.image_channels))

    @cached_property
    def parameters(self) -> int:
        """Of the module."""
        return count_parameters(self.source.module)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates for one image; 0 where they cannot be counted."""
        try:
            return count_macs(self.source.module, self.size, self.spec.input.channels)
        except Exception:  # a module of the user's own may not run without data
            return 0

    def with_postprocess(self, postprocess: PostprocessSpec) -> ExportJob:
        """The same job for a network whose logits become labels in another way."""
        return replace(self, source=self.source.but(postprocess=postprocess))

    def expected(self, pictures: Sequence[Path] | None = None, *, synthetic: bool = True) -> ParitySet:
        """Run fp32 PyTorch on pictures.

        Args:
            pictures: Files; the job's own where none are given.
            synthetic: Add the two edge cases.
        """
        files = self.pictures if pictures is None else pictures
        spec = self.spec
        return parity_set(self.reference, self.size, spec.resize, spec.postprocess, files, synthetic=synthetic)


def noise(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Random pixels, the same at every call."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def prepare_job(source: NetworkSource, config: ExportConfig, name: str | None = None) -> ExportJob:
    """Check everything that can be checked before the work begins.

    Args:
        source: The network.
        config: The options.
        name: Of the bundle; the network's where none is given.

    Raises:
        SizeError: The network does not take the size.
        UsageError: The name cannot be a file's, the label set does not fit the network, or how many channels the
            network takes is not what was said, or has to be.
        InputError: A picture cannot be read.
        ExportError: The module fails on a picture of the size.
        TargetUnavailableError: A package that the precision needs is not installed.
    """
    size = config.size or source.spec.input_size
    check_divisor(source.spec.name or source.origin, size, source.spec.divisor)
    source.check_takes(size, batch=config.batch, dynamic=config.dynamic)
    default_passes(skip=config.skip_passes)  # an unknown name is told before the work
    source = settle_channels(source, size, config.channels)
    channels = source.spec.input.image_channels
    pictures = _pictures(config, channels)
    calibration = _list_calibration(config, channels)
    check_normalisation(source.spec.input)
    cut = config.threshold is not None or config.activation == "sigmoid"
    seen = inspect_network(source, size, config.take, cut=cut)
    source = _with_activation(source, config, seen.channels)
    labels = _labels(source, seen.channels)
    return ExportJob(
        source=source,
        config=config,
        name=_checked_name(name, source.spec),
        size=size,
        channels=seen.channels,
        logit_size=seen.logit_size,
        labels=labels,
        pictures=pictures,
        take=seen.choice.take,
        notes=seen.notes + _passed_over(config, channels),
        readings=seen.readings,
        calibration=_load_calibration(calibration, source, config, size, labels),
        seen=seen.range,
    )


def _pictures(config: ExportConfig, channels: int) -> tuple[Path, ...]:
    """The sample and the pictures to verify on, each of which can be read."""
    listed = [file for path in config.parity_images for file in pictures_at(path, channels)]
    pictures = (config.sample or shipped_sample(), *listed)
    for picture in pictures:
        read_for(picture, channels)
    return pictures


def _list_calibration(config: ExportConfig, channels: int) -> list[Pair]:
    if config.precision == "int8":
        require_nncf()
    return (
        []
        if config.calib is None
        else list_calibration(config.calib, recursive=config.calib_recursive, channels=channels)
    )


def _passed_over(config: ExportConfig, channels: int) -> tuple[str, ...]:
    """Say which files of the calibration folder are no pictures."""
    data = config.calib
    if data is None:
        return ()
    if isinstance(data, LabelledPictures):
        return data.passed_over(channels)
    return passed_over(data, recursive=config.calib_recursive, channels=channels)


def _load_calibration(
    pairs: Sequence[Pair], source: NetworkSource, config: ExportConfig, size: Size, labels: LabelSet
) -> Calibration | None:
    if not pairs:
        return None
    data = config.calib
    reader = data.reader(labels.names, labels.palette) if isinstance(data, LabelledPictures) else None
    return load_calibration(pairs, size, source.spec.resize, reader, channels=source.spec.input.image_channels)


def _with_activation(source: NetworkSource, config: ExportConfig, channels: int) -> NetworkSource:
    """The network with the activation and the threshold that were given, if any were."""
    if config.threshold is not None and channels != 1:
        raise UsageError(
            f"--threshold is for networks of one output channel, and this one has {channels}; leave it out"
        )
    before = source.spec.postprocess
    if config.activation is not None or config.threshold is not None:
        before = before.with_activation(config.activation or before.activation, config.threshold)
    before.check_channels(channels)
    return source.but(postprocess=before)


def _labels(source: NetworkSource, channels: int) -> LabelSet:
    """Names and colours of the classes; generic ones where the network's own set does not fit and none was chosen."""
    if source.label_set is not None and len(source.label_set.names) == max(2, channels):
        return source.label_set
    name = source.spec.labels
    found = label_set(name, channels)
    if source.labels_chosen and found.name != name:
        raise UsageError(
            f"the label set '{name}' does not fit a network of {channels} output channels; leave --labels out "
            "for generic names, or check the checkpoint"
        )
    return found


def _checked_name(name: str | None, spec: ModelSpec) -> str:
    """The bundle's name: a plain file name."""
    chosen = spec.name or "network" if name is None else name
    if not chosen.strip() or chosen.startswith(".") or any(mark in chosen for mark in "/\\\0"):
        raise UsageError(f"'{one_line(chosen)}' cannot name a bundle; give a plain name, and the folder as --out")
    return chosen
