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
from edgeseg.export.passes import default_passes
from edgeseg.export.precision.calibration import Calibration, load_calibration
from edgeseg.export.precision.int8 import require_nncf
from edgeseg.export.reference import ParitySet, parity_set, read_for, shipped_sample
from edgeseg.label_files import LabelRules
from edgeseg.labels import LabelSet, label_set
from edgeseg.models.count import count_macs, count_parameters
from edgeseg.models.source import NetworkSource
from edgeseg.models.spec import ModelSpec
from edgeseg.sources import pictures_at
from edgeseg.specs import PostprocessSpec, Size, check_divisor
from edgeseg.text import one_line

__all__ = ["ExportJob", "calibration_rules", "noise", "prepare_job"]


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
        calibration: Calibration pictures, where a folder of them was given.
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
    calibration: Calibration | None = None

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
        """Height x width of the labels that a graph ends in."""
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
    default_passes(skip=config.skip_passes)  # an unknown name is told before the work
    source = settle_channels(source, size, config.channels)
    pictures = _pictures(config, source.spec.input.image_channels)
    calibration = _calibration(source, config, size)
    check_normalisation(source.spec.input)
    seen = inspect_network(source, size, config.take)
    source = _with_threshold(source, config.threshold, seen.channels)
    return ExportJob(
        source=source,
        config=config,
        name=_checked_name(name, source.spec),
        size=size,
        channels=seen.channels,
        logit_size=seen.logit_size,
        labels=_labels(source, seen.channels),
        pictures=pictures,
        take=seen.choice.take,
        notes=seen.notes,
        calibration=calibration,
    )


def _pictures(config: ExportConfig, channels: int) -> tuple[Path, ...]:
    """The sample and the pictures to verify on, each of which can be read."""
    listed = [file for path in config.parity_images for file in pictures_at(path, channels)]
    pictures = (config.sample or shipped_sample(), *listed)
    for picture in pictures:
        read_for(picture, channels)
    return pictures


def _calibration(source: NetworkSource, config: ExportConfig, size: Size) -> Calibration | None:
    if config.precision == "int8":
        require_nncf()
    if config.calib is None:
        return None
    rules, channels = calibration_rules(config), source.spec.input.image_channels
    return load_calibration(
        config.calib,
        size,
        source.spec.resize,
        labels=config.calib_labels,
        label_rules=rules,
        channels=channels,
    )


def calibration_rules(config: ExportConfig) -> LabelRules:
    """Say what values of the calibration's label maps mean."""
    return LabelRules(config.calib_ignore, config.calib_positive_label, config.calib_reduce_zero_label)


def _with_threshold(source: NetworkSource, threshold: float | None, channels: int) -> NetworkSource:
    """The network with the threshold that was given, if one was."""
    if threshold is None:
        return source
    if channels != 1:
        raise UsageError(
            f"--threshold is for networks of one output channel, and this one has {channels}; leave it out"
        )
    return source.but(postprocess=replace(source.spec.postprocess, threshold=threshold))


def _labels(source: NetworkSource, channels: int) -> LabelSet:
    """Names and colours of the classes; generic ones where the network's own set does not fit and none was chosen."""
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
