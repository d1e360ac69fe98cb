"""Sizes, input conventions and their JSON form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import SizeError, UsageError
from edgeseg.fields import FieldError, Fields
from edgeseg.specs import ACTIVATIONS, InputSpec, PostprocessSpec, ResizeRule, check_divisor, parse_size

finite = st.floats(-1e3, 1e3, allow_nan=False)
nonzero = st.floats(0.01, 1e3)


@pytest.mark.parametrize(
    ("text", "size"), [("512x1024", (512, 1024)), ("192", (192, 192)), ("360X480", (360, 480)), ("4×6", (4, 6))]
)
def test_parse_size_is_height_first(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "512x", "0x4", "-1x4", "1x2x3", "512 by 1024", "4.5x2"])
def test_parse_size_refuses_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="512x1024"):
        parse_size(text)


@given(
    order=st.sampled_from(["rgb", "bgr"]),
    mean=st.tuples(finite, finite, finite),
    std=st.tuples(nonzero, nonzero, nonzero),
    scale=nonzero,
)
def test_input_spec_survives_json(
    order: str, mean: tuple[float, float, float], std: tuple[float, float, float], scale: float
) -> None:
    spec = InputSpec(order, mean, std, scale)  # type: ignore[arg-type]
    assert InputSpec.from_fields(Fields(json.loads(json.dumps(spec.to_json())))) == spec


def test_other_specs_survive_json() -> None:
    rule = ResizeRule("letterbox", "area", (1, 2, 3))
    postprocess = PostprocessSpec(True, 0.25)
    assert ResizeRule.from_fields(Fields(json.loads(json.dumps(rule.to_json())))) == rule
    assert PostprocessSpec.from_fields(Fields(json.loads(json.dumps(postprocess.to_json())))) == postprocess


def test_imagenet_constants_are_on_0_to_255() -> None:
    spec = InputSpec.imagenet()
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53))
    assert spec.std == pytest.approx((58.395, 57.12, 57.375))


@pytest.mark.parametrize(
    "arguments",
    [
        {"channel_order": "gbr"},
        {"std": (1.0, 0.0, 1.0)},
        {"scale": 0.0},
        {"mean": (float("nan"), 0.0, 0.0)},
    ],
)
def test_input_spec_refuses_nonsense(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        InputSpec(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"mode": "crop"}, {"filter": "lanczos"}])
def test_resize_rule_refuses_unknown_words(arguments: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="none of"):
        ResizeRule(**arguments)  # type: ignore[arg-type]


def test_check_divisor_names_sizes_that_fit() -> None:
    check_divisor("net", (64, 96), 32)
    with pytest.raises(SizeError, match=r"multiples of 32, got 500x1000; use 480x992 or 512x1024"):
        check_divisor("net", (500, 1000), 32)
    with pytest.raises(SizeError, match="use 32x32"):
        check_divisor("net", (8, 20), 32)


def test_a_threshold_follows_the_activation_unless_it_was_given() -> None:
    assert [PostprocessSpec(activation=name).threshold for name in ACTIVATIONS] == [0.0, 0.5, 0.0]
    for before in ACTIVATIONS:
        for after in ACTIVATIONS:
            kept = PostprocessSpec(True, activation=before).with_activation(after)
            assert kept == PostprocessSpec(True, activation=after)
            assert PostprocessSpec(True, 0.25, before).with_activation(after) == PostprocessSpec(True, 0.25, after)
            assert PostprocessSpec(True, 0.25, before).with_activation(after, 0.75).threshold == 0.75


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"activation": "relu"}, "activation 'relu' is none of none, sigmoid, softmax"),
        ({"activation": "sigmoid", "threshold": 0.0}, "after a sigmoid, whose values lie between 0 and 1"),
        ({"activation": "sigmoid", "threshold": 1.0}, "after a sigmoid"),
        ({"activation": "sigmoid", "threshold": 127.5}, "after a sigmoid"),
        ({"threshold": float("nan")}, "must be a finite number"),
        ({"threshold": float("inf"), "activation": "softmax"}, "must be a finite number"),
    ],
)
def test_what_a_postprocessing_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        PostprocessSpec(**given)


def test_logits_are_written_as_before_there_were_activations() -> None:
    assert PostprocessSpec(True, 0.25).to_json() == {"align_corners": True, "threshold": 0.25}
    for spec in (PostprocessSpec(True, 0.25), *(PostprocessSpec(activation=name) for name in ACTIVATIONS)):
        assert PostprocessSpec.from_fields(Fields(spec.to_json())) == spec
    assert (
        PostprocessSpec.from_fields(Fields({**PostprocessSpec().to_json(), "activation": "none"})) == PostprocessSpec()
    )
    with pytest.raises(FieldError, match="activation is 1; it must be one of none, sigmoid, softmax"):
        PostprocessSpec.from_fields(Fields({**PostprocessSpec().to_json(), "activation": 1}))
