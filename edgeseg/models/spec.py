"""What the registry knows of a network before it is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, Size

__all__ = ["ModelSpec", "custom_spec"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Facts of one registered network.

    Attributes:
        system: The published system, such as ``"ESPNet"``.
        year: Of the paper.
        paper: Title, venue or arXiv number.
        source: Whose implementation the network equals number for number, and whether it is the authors' own.
        num_classes: Default number of output channels.
        labels: Name of the label set (`edgeseg.labels`), from which the set for another number of classes follows.
        input_size: Height x width of published use; the default of export.
        divisor: Heights and widths must be multiples of it.
        input: Channel order, mean, std and scale of the published weights.
        resize: How a picture becomes one of the network's size.
        postprocess: The published trailing resize (`align_corners`) and, for one logit, the threshold.
        classes_key: Key of a published tensor whose first dimension is the number of classes; lets a checkpoint with
            another number of classes load without saying so.
        params: Trainable parameters of the published implementation at `num_classes`, dead and training-only parts
            included where its state dict holds them; `params_note` explains a difference from ours.
        params_note: See `params`.
        accuracy: Published accuracy in words: data set, metric, size.
        weights_licence: Licence of known published weights.
        notes: Anything a user must know: what is uncertain, which weights fit.
        logit_tolerance: Largest difference of a logit between engines that an export accepts, relative to their range.
            Larger for a network with jumps (max-unpool), where rounding moves single values.
        min_side: Smallest height and width that it takes.
        name: Set by `edgeseg.models.register`.

    Example:
        >>> from edgeseg.models import model_spec
        >>> model_spec("espnet_p2_q8").but(input_size=(256, 512)).input_size
        (256, 512)
    """

    system: str
    year: int
    paper: str
    source: str
    num_classes: int
    labels: str
    input_size: Size
    divisor: int
    input: InputSpec
    classes_key: str
    params: int
    resize: ResizeRule = field(default_factory=ResizeRule)
    postprocess: PostprocessSpec = field(default_factory=PostprocessSpec)
    params_note: str = ""
    accuracy: str = ""
    weights_licence: str = ""
    notes: str = ""
    logit_tolerance: float = 1e-3
    min_side: int = 1
    name: str = ""

    def but(self, **changes: Any) -> ModelSpec:
        """Copy the facts with the given fields changed.

        Example:
            >>> from edgeseg.models import model_spec
            >>> spec = model_spec("regseg").but(input_size=(256, 512))
            >>> spec.system, spec.input_size
            ('RegSeg', (256, 512))
        """
        return replace(self, **changes)


def custom_spec(name: str, **conventions: Any) -> ModelSpec:
    """Describe a network that is not registered.

    Args:
        name: Of the network; characters that no file name takes become ``_``.
        conventions: Fields of `ModelSpec` that differ from what most published weights use: RGB, pixels / 255,
            ImageNet mean and std; pictures stretched bilinearly to 512x512 (height x width); generic label names.

    >>> spec = custom_spec("mine", input_size=(256, 512), labels="cityscapes")
    >>> spec.name, spec.input_size, spec.input.channel_order
    ('mine', (256, 512), 'rgb')
    """
    base = ModelSpec(
        system=name,
        year=0,
        paper="",
        source="the user's own",
        num_classes=0,
        labels="generic",
        input_size=(512, 512),
        divisor=1,
        input=InputSpec.imagenet(),
        classes_key="",
        params=0,
        name=re.sub(r"\W+", "_", name.rsplit(":", 1)[-1]).strip("_").lower() or "network",
    )
    return base.but(**conventions)
