"""The settings of a Predictor."""

from __future__ import annotations

from dataclasses import fields

import pytest

from edgeseg.bundle import Bundle
from edgeseg.predictor import Predictor
from edgeseg.predictor.config import PredictorConfig, PredictorKeywords


def test_the_keywords_are_the_fields() -> None:
    assert set(PredictorKeywords.__annotations__) == {field.name for field in fields(PredictorConfig)}


def test_the_predictor_describes_every_keyword() -> None:
    described = Predictor.__doc__ or ""
    assert [field.name for field in fields(PredictorConfig) if f"        {field.name}: " not in described] == []


def test_an_unknown_keyword_is_refused(tiny: Bundle) -> None:
    with pytest.raises(TypeError, match="thread"):
        Predictor(tiny, thread=2)  # type: ignore[call-arg]
