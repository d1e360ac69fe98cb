"""What the values of an output are taken for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.export.output_range import Kind, OutputRange

F32 = NDArray[np.float32]


def _noise(channels: int, seed: int = 0) -> F32:
    return 3 * np.random.default_rng(seed).standard_normal((channels, 6, 8)).astype(np.float32)


def _softmax(values: F32) -> F32:
    power = np.exp(values - values.max(axis=0))
    return np.asarray(power / power.sum(axis=0), np.float32)


def _sigmoid(values: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-values)), np.float32)


def _one_hot(values: F32) -> F32:
    return np.asarray(np.arange(len(values))[:, None, None] == values.argmax(axis=0), np.float32)


@given(seed=st.integers(0, 2**32 - 1), channels=st.integers(2, 40))
def test_kinds_of_several_channels(seed: int, channels: int) -> None:
    values = _noise(channels, seed)
    kinds: list[tuple[F32, Kind]] = [
        (values, "logits"),
        (np.log(_softmax(values)), "logits"),
        (_softmax(values), "softmax"),
        (_softmax(values).astype(np.float16).astype(np.float32), "softmax"),
        (_one_hot(values), "one-hot"),
        (255 * _one_hot(values), "never negative"),
        (100 * _softmax(values), "never negative"),
        (_sigmoid(2 * values), "sigmoid"),
        (np.float32(0.25) + _sigmoid(values) / np.float32(2), "narrow"),
    ]
    assert [(OutputRange.of([one]).kind, kind) for one, kind in kinds if OutputRange.of([one]).kind != kind] == []


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (_noise(1), "logits"),
        (np.tanh(_noise(1)), "tanh"),
        (0.9 * np.tanh(_noise(1)), "logits"),
        (1.1 * np.tanh(_noise(1)), "logits"),
        (-_sigmoid(_noise(1)), "logits"),
        (np.ones((1, 2, 2), np.float32), "logits"),
        (np.zeros((1, 2, 2), np.float32), "logits"),
        (_sigmoid(_noise(1)), "probability"),
        (0.5 + _sigmoid(_noise(1)) / 100, "probability"),
        (np.float32(1 + 1e-6) * (_noise(1) > 0), "probability"),
        (255 * _sigmoid(_noise(1)), "never negative"),
        (np.maximum(_noise(1), 0), "never negative"),
    ],
)
def test_kinds_of_one_channel(values: F32, kind: Kind) -> None:
    assert OutputRange.of([values.astype(np.float32)]).kind == kind


def test_all_pictures_count() -> None:
    first, second = _softmax(_noise(3)), _noise(3, 1)
    both = OutputRange.of([first, second])
    assert both == OutputRange.of([first]).joined(OutputRange.of([second]))
    assert (both.low, both.high) == (float(second.min()), float(second.max()))
    assert (OutputRange.of([first]).kind, both.kind) == ("softmax", "logits")
    assert OutputRange.of([_one_hot(first), first]).kind == "softmax"
