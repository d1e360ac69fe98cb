"""What the numbers on the pictures say: probabilities, one label everywhere, a normalisation that cannot be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeseg.errors import ExportError, UsageError
from edgeseg.export.job import ExportJob
from edgeseg.export.output_range import KINDS, Kind, OutputRange
from edgeseg.export.reference import ParitySet
from edgeseg.models import model_spec
from edgeseg.specs import Activation, InputSpec

__all__ = ["Settled", "channel_order_note", "normalisation_note", "range_notes", "settle_activation"]

_WIDE = 20.0
"""Standard deviations that normalised pixels span at most; ImageNet's numbers make 4.5 of 0..255."""

_NARROW = 0.05
"""Standard deviations that normalised pixels span at least; one grey level is a 255th of the span."""


@dataclass(frozen=True)
class Settled:
    """An export whose activation and threshold are known.

    Attributes:
        job: Its postprocessing holds them.
        expected: Labels are by them.
        notes: Sentences the user must see.
    """

    job: ExportJob
    expected: ParitySet
    notes: tuple[str, ...] = ()


def settle_activation(job: ExportJob, expected: ParitySet, last: str = "") -> Settled:
    """Find out what the network has applied to its output itself, from its values and its last operator.

    What the user said goes before what is seen. A registered network returns what it says.

    Args:
        job: The export.
        expected: What fp32 PyTorch makes of the parity pictures.
        last: The operator that makes the output a probability (`edgeseg.graph.ending.last_activation`), if any.

    Raises:
        ExportError: Labels depend on a threshold that nobody gave.
        UsageError: The values are not what the user said.
    """
    seen = OutputRange.of(expected.logits)
    seen = seen if job.seen is None else seen.joined(job.seen)
    given = job.spec.postprocess
    if job.config.activation is not None or given.activation != "none":
        return Settled(job, expected, _said_notes(given.activation, seen))
    if job.source.registered:
        return Settled(job, expected)
    find = _of_one_channel if seen.channels == 1 else _of_several
    activation, note = find(job, seen, last)
    if activation != "none":
        job = job.with_postprocess(given.with_activation(activation))
        expected = expected.labelled(job.spec.postprocess)
    return Settled(job, expected, (note,) if note else ())


def _said_notes(said: Activation, seen: OutputRange) -> tuple[str, ...]:
    """Hold what the user said against what was seen."""
    if said != "none" and not seen.within_unit:
        raise UsageError(
            f"activation {said} was given (--activation), whose values lie within 0..1, and the network returns "
            f"{seen}; leave it out for logits, or divide by their scale in its forward"
        )
    if said == "softmax" and not seen.sums_to_one:
        return (
            f"activation softmax was given, but the channels of a pixel sum to {seen.least:.3g}..{seen.most:.3g} and "
            "not to 1; scores are their values all the same",
        )
    if said == "none" and seen.kind in _PROBABILITIES:
        made = "sigmoid" if seen.channels == 1 else "softmax"
        return (
            f"activation none was given, though the output looks like {KINDS[seen.kind]}; scores are the {made} of it",
        )
    return ()


def _of_one_channel(job: ExportJob, seen: OutputRange, last: str) -> tuple[Activation, str]:
    """The activation of one channel, and the sentence on it."""
    threshold = job.spec.postprocess.threshold
    said = job.config.threshold is not None or threshold != 0.0
    if seen.low == seen.high == 1.0:
        raise ExportError(
            "the network's one output channel is 1 everywhere on every picture, as a softmax over one channel is; "
            "return the logit before it, or its sigmoid"
        )
    if last or (seen.kind == "probability" and said):
        return _probability(seen, last, threshold if said else None)
    if said:
        return "none", _THRESHOLD.format(threshold) if threshold else ""
    if seen.kind == "probability":
        raise ExportError(
            f"the network's one output channel lies within {seen} on every picture, as probabilities "
            "do, and the threshold is 0, that of logits, which they are never below; give --threshold 0.5 for "
            "probabilities (threshold=0.5 in Python), or --threshold 0 if these are logits"
        )
    if seen.kind == "never negative":
        advice = "--threshold 127.5 for values of 0..255, " if seen.high <= 255.0 else ""
        raise ExportError(
            f"the network's one output channel lies within {seen} on every picture, and the threshold is 0, that of "
            f"logits, which it is never below; give the value between the two labels, {advice}or --threshold 0 if "
            "these are logits"
        )
    return "none", _looks_like(seen, _TANH) if seen.kind == "tanh" else ""


_THRESHOLD = (
    "labels are 1 where the one output channel is above {:g}; scores are its sigmoid, as those of logits, so the score "
    "of a label may be below 0.5 (--activation sigmoid is for probabilities)"
)


def _probability(seen: OutputRange, last: str, threshold: float | None) -> tuple[Activation, str]:
    """One channel of probabilities, for which the user or the graph speaks."""
    if threshold is not None and not 0.0 < threshold < 1.0:
        return "none", ""
    why = f"the network ends in a {_WORDS[last]}" if last else f"{threshold:g} was given as the threshold"
    return "sigmoid", (
        f"the one output channel is taken as a probability ({why}, and its values lie within {seen}): label 1 is above "
        f"{0.5 if threshold is None else threshold:g}, and scores are the values; --threshold says another, "
        "--activation none takes it for logits"
    )


_WORDS = {"Sigmoid": "sigmoid", "HardSigmoid": "hard sigmoid", "Softmax": "softmax"}


def _of_several(job: ExportJob, seen: OutputRange, last: str) -> tuple[Activation, str]:
    """The activation of several channels, and the sentence on it."""
    kind = seen.kind
    if last and kind not in _PROBABILITIES:  # far from both ends, or beyond them by a bicubic resize
        kind = "softmax" if seen.sums_to_one else "sigmoid"
    if kind not in _SEVERAL:
        return "none", ""
    activation, ending = _SEVERAL[kind]
    return activation, _looks_like(seen, ending, kind)


def _looks_like(seen: OutputRange, ending: str, kind: Kind | None = None) -> str:
    """The sentence on what was seen, and what follows of it."""
    who = "the one output channel" if seen.channels == 1 else f"the {seen.channels} output channels"
    verb = "looks" if seen.channels == 1 else "look"
    return f"{who} ({seen}) {verb} like {KINDS[kind or seen.kind]}; {ending}"


_PROBABILITIES: tuple[Kind, ...] = ("probability", "softmax", "one-hot", "sigmoid")

_TANH = (
    "labels are right, and scores are those of logits, which such small numbers leave near one another; return what "
    "goes into the tanh for probabilities"
)
_OTHERWISE = "--activation none takes them for logits"
_SEVERAL: dict[Kind, tuple[Activation, str]] = {
    "softmax": ("softmax", f"scores are the values; {_OTHERWISE}"),
    "one-hot": (
        "softmax",
        "labels are exact at their size, and scores are what is left of the 1 after resizing; return the values before "
        "the argmax for probabilities",
    ),
    "sigmoid": (
        "sigmoid",
        "several classes or none may be likely at a pixel (multi-label), and its label is the one of the largest "
        f"value; scores are the values; {_OTHERWISE}",
    ),
    "narrow": ("none", "they are taken for logits; --activation sigmoid takes them for probabilities"),
    "never negative": (
        "none",
        "labels are right, and scores are the softmax of such numbers; for probabilities of 0..100 or 0..255 divide by "
        "that in its forward",
    ),
    "tanh": ("none", _TANH),
}
"""Kind -> the activation that is taken, and what the user must know of it."""


def range_notes(job: ExportJob, expected: ParitySet) -> tuple[str, ...]:
    """Say what looks wrong in the labels of the parity pictures and in the normalisation."""
    values = np.unique(np.concatenate([np.unique(labels) for labels in expected.labels]))
    published = model_spec(job.source.origin).input if job.source.registered else None
    cause = "" if job.spec.input == published else normalisation_note(job.spec.input)
    order = channel_order_note(job.spec.input, published)
    if len(values) > 1:
        return tuple(note for note in (cause, order) if note)
    name = job.labels.names[int(values[0])]
    one = (
        f"fp32 PyTorch gives one label everywhere, {values[0]} ({name}), on all {len(expected.labels)} parity pictures"
    )
    return (f"{one}: {cause or order or _causes(job, expected)}",)


def _causes(job: ExportJob, expected: ParitySet) -> str:
    """What may be wrong where there is one label everywhere."""
    advice = "check the weights, and mean, std, scale and channel order of the input"
    if job.channels != 1:
        return advice
    seen, threshold = OutputRange.of(expected.logits), job.spec.postprocess.threshold
    return f"its one channel lies within {seen}, and the threshold is {threshold:g} (--threshold); {advice}"


def normalisation_note(spec: InputSpec) -> str:
    """Say that mean and std are on the wrong scale; empty where they may be right.

    Example:
        >>> normalisation_note(InputSpec(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))).split(":")[0]
        'normalised pixels span 510 standard deviations'
        >>> normalisation_note(InputSpec.imagenet()), normalisation_note(InputSpec(mean=(104.0, 117.0, 123.0)))
        ('', '')
    """
    span = max(abs(255.0 * spec.scale / std) for std in spec.std)
    if span > _WIDE and _on_unit_scale(spec):
        mean, std = (" ".join(f"{255 * x:g}" for x in numbers) for numbers in (spec.mean, spec.std))
        return (
            f"normalised pixels span {span:.0f} standard deviations: mean and std look like numbers for pixels of "
            f"0..1, and they are on 0..255 here; likely right are --mean {mean} --std {std}"
        )
    if span < _NARROW:
        return (
            f"normalised pixels span only {span:.2g} standard deviations, so every picture looks nearly the same to "
            f"the network: std {', '.join(f'{x:g}' for x in spec.std)} and scale {spec.scale:g} divide pixels of "
            "0..255 twice; leave one of them out"
        )
    return ""


def channel_order_note(spec: InputSpec, published: InputSpec | None = None) -> str:
    """Say that the channel order is likely the other one; empty where it may be right.

    Args:
        spec: How pixels become the network's input.
        published: The same of the published weights, where the network is a registered one.

    Example:
        >>> channel_order_note(InputSpec("bgr", (123.675, 116.28, 103.53))).split(":")[0]
        "mean 123.675 116.28 103.53 is that of ImageNet's pixels with red first, and the channel order is bgr"
        >>> channel_order_note(InputSpec.imagenet("rgb"))
        ''
    """
    if spec.channels != 3 or spec == published:
        return ""
    if published is not None and spec.channel_order != published.channel_order:
        return (
            f"the published weights of this network take {published.channel_order}, and {spec.channel_order} was given "
            "(--channel-order); leave it out unless the weights are others"
        )
    first = next((word for word, means in _known_means().items() if _near(spec.mean, means)), None)
    if first is None or first == _FIRST[spec.channel_order]:
        return ""
    mean = " ".join(f"{x:g}" for x in spec.mean)
    other = "bgr" if spec.channel_order == "rgb" else "rgb"
    return (
        f"mean {mean} is that of ImageNet's pixels with {first} first, and the channel order is {spec.channel_order}: "
        f"say --channel-order {other} if the weights take {first} first, else turn the numbers round"
    )


_FIRST = {"rgb": "red", "bgr": "blue"}
_IMAGENET = ((123.675, 116.28, 103.53), (122.679, 116.669, 104.007))
"""Means of ImageNet's pixels with red first, as torchvision and Caffe have them."""


def _known_means() -> dict[str, tuple[tuple[float, ...], ...]]:
    return {"red": _IMAGENET, "blue": tuple(mean[::-1] for mean in _IMAGENET)}


def _near(mean: tuple[float, ...], means: tuple[tuple[float, ...], ...]) -> bool:
    return any(all(abs(a - b) <= 1.0 for a, b in zip(mean, other, strict=True)) for other in means)


def _on_unit_scale(spec: InputSpec) -> bool:
    """Whether mean and std are those of pixels of 0..1, and not those of pixels that are left as they are."""
    return all(abs(x) <= 1.0 for x in (*spec.mean, *spec.std)) and any(abs(x) < 1.0 for x in spec.std)
