"""What the numbers on the parity pictures say: one label everywhere, probabilities, a normalisation that cannot be."""

from __future__ import annotations

import numpy as np

from edgeseg.errors import ExportError
from edgeseg.export.job import ExportJob
from edgeseg.export.reference import ParitySet
from edgeseg.models import model_spec
from edgeseg.specs import InputSpec

__all__ = ["check_threshold", "normalisation_note", "range_notes"]

_WIDE = 20.0
"""Standard deviations that normalised pixels span at most; ImageNet's numbers make 4.5 of 0..255."""

_NARROW = 0.05
"""Standard deviations that normalised pixels span at least; one grey level is a 255th of the span."""


def check_threshold(job: ExportJob, expected: ParitySet) -> None:
    """Refuse probabilities of one channel that are cut at 0, the threshold of logits, without the user's word.

    Raises:
        ExportError: Every value lies within 0..1, so that every pixel would be foreground.
    """
    postprocess = job.spec.postprocess
    if job.channels != 1 or job.source.registered or job.config.threshold is not None or postprocess.threshold != 0.0:
        return
    low = min(float(x.min()) for x in expected.logits)
    high = max(float(x.max()) for x in expected.logits)
    if 0.0 <= low < high <= 1.0:
        raise ExportError(
            f"the network's one output channel lies within {low:.3g}..{high:.3g} on every picture, as probabilities "
            "do, and the threshold is 0, that of logits, which they are never below; give --threshold 0.5 for "
            "probabilities (threshold=0.5 in Python), or --threshold 0 if these are logits"
        )


def range_notes(job: ExportJob, expected: ParitySet) -> tuple[str, ...]:
    """Say what looks wrong in the labels of the parity pictures and in the normalisation."""
    values = np.unique(np.concatenate([np.unique(labels) for labels in expected.labels]))
    cause = "" if _is_published(job) else normalisation_note(job.spec.input)
    if len(values) > 1:
        return (cause,) if cause else ()
    name = job.labels.names[int(values[0])]
    one = (
        f"fp32 PyTorch gives one label everywhere, {values[0]} ({name}), on all {len(expected.labels)} parity pictures"
    )
    return (f"{one}: {cause or 'check the weights, and mean, std, scale and channel order of the input'}",)


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


def _on_unit_scale(spec: InputSpec) -> bool:
    """Whether mean and std are those of pixels of 0..1, and not those of pixels that are left as they are."""
    return all(abs(x) <= 1.0 for x in (*spec.mean, *spec.std)) and any(abs(x) < 1.0 for x in spec.std)


def _is_published(job: ExportJob) -> bool:
    """Whether the normalisation is a registered network's own."""
    return job.source.registered and job.spec.input == model_spec(job.source.origin).input
