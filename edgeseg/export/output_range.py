"""What the values of a network's output say of it: logits, probabilities, one-hot, or numbers on another scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "Kind", "OutputRange"]

Kind = Literal["logits", "probability", "softmax", "one-hot", "sigmoid", "narrow", "never negative", "tanh"]

KINDS: dict[Kind, str] = {
    "logits": "logits",
    "probability": "a probability: one channel within 0..1",
    "softmax": "probabilities that sum to 1 at every pixel",
    "one-hot": "one-hot: 0 or 1, and one 1 at every pixel",
    "sigmoid": "a probability per class: channels within 0..1 that do not sum to 1",
    "narrow": "logits, or a probability per class: channels within 0..1, far from its ends",
    "never negative": "numbers that are never negative: logits, or probabilities on another scale than 0..1",
    "tanh": "numbers within -1..1, as of a tanh",
}
"""Each kind in words."""

_SLACK = 1e-3
"""How far a probability may lie outside 0..1, or a sum of them from 1: what half precision inside a network rounds."""

_NEAR = 0.05
"""Values this near to both ends are those of a sigmoid or tanh; logits hardly fill just that range."""


@dataclass(frozen=True)
class OutputRange:
    """The range of an output on some pictures.

    Attributes:
        channels: Of the output.
        low: Smallest value.
        high: Largest value.
        least: Smallest sum over the channels of a pixel.
        most: Largest such sum.
        whole: Whether all values are whole numbers.

    Example:
        >>> maps = np.array([[[0.25, 1.0]], [[0.75, 0.0]]], np.float32)
        >>> OutputRange.of([maps]).kind, OutputRange.of([4 * maps]).kind, OutputRange.of([maps[:1]]).kind
        ('softmax', 'never negative', 'probability')
    """

    channels: int
    low: float
    high: float
    least: float
    most: float
    whole: bool

    @classmethod
    def of(cls, maps: Iterable[NDArray[np.float32]]) -> OutputRange:
        """Look at outputs (C, h, w), at least one of them."""
        found = [_of_map(one) for one in maps]
        first = found[0]
        for other in found[1:]:
            first = first.joined(other)
        return first

    def joined(self, other: OutputRange) -> OutputRange:
        """The range on the pictures of both."""
        return OutputRange(
            self.channels,
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.least, other.least),
            max(self.most, other.most),
            self.whole and other.whole,
        )

    @property
    def within_unit(self) -> bool:
        """Whether all values are probabilities, but for rounding."""
        return self.low >= -_SLACK and self.high <= 1.0 + _SLACK

    @property
    def sums_to_one(self) -> bool:
        """Whether the channels of every pixel sum to 1, but for rounding."""
        return abs(self.least - 1.0) <= _SLACK and abs(self.most - 1.0) <= _SLACK

    @property
    def kind(self) -> Kind:
        """What the output most likely is."""
        if self.within_unit and self.channels > 1 and self.sums_to_one:
            return "one-hot" if self.whole else "softmax"
        if self.low < 0.0 or self.low == self.high:
            ends = (self.low, -self.high)
            return "tanh" if max(ends) <= _NEAR - 1.0 and min(ends) >= -1.0 - _SLACK else "logits"
        if not self.within_unit:
            return "never negative"
        if self.channels == 1:
            return "probability"
        return "sigmoid" if self.low <= _NEAR and self.high >= 1.0 - _NEAR else "narrow"

    def __str__(self) -> str:
        return f"{self.low:.3g}..{self.high:.3g}"


def _of_map(values: NDArray[np.float32]) -> OutputRange:
    total = values.sum(axis=0, dtype=np.float64)
    return OutputRange(
        len(values),
        float(values.min()),
        float(values.max()),
        float(total.min()),
        float(total.max()),
        bool((values == np.rint(values)).all()),
    )
