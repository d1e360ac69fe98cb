"""Sizes, input conventions and their JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable
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


@pytest.mark.parametrize(("channels", "of_graph"), [(1, 3), (2, 2), (3, 3), (4, 4), (13, 13), (512, 512)])
def test_channels_follow_from_mean_and_std(channels: int, of_graph: int) -> None:
    spec = InputSpec.plain(channels)
    assert (spec.channels, spec.image_channels) == (channels, of_graph)
    assert InputSpec.from_fields(Fields(spec.to_json())) == spec
    assert InputSpec(mean=(1.0,), std=(2.0,)).spread(channels).std == (2.0,) * channels
    assert spec.spread(channels) == spec


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: InputSpec(mean=(1.0,) * 4), "mean has 4 numbers and std 3; give each one number per channel"),
        (lambda: InputSpec(mean=(1.0,), std=(1.0, 2.0)), "mean has 1 number and std 2"),
        (lambda: InputSpec(mean=(), std=()), "0 channels were asked for; a network's input has 1 to 512"),
        (lambda: InputSpec.plain(513), "513 channels were asked for"),
        (lambda: InputSpec("bgr", (1.0,) * 4, (1.0,) * 4), "'bgr' is for networks of 3 channels, this one takes 4"),
        (lambda: InputSpec("bgr", (1.0,), (1.0,)), "this one takes 1"),
        (lambda: InputSpec.plain(4).spread(5), "mean and std have 4 numbers each, and the network takes 5 channels"),
        (lambda: ResizeRule(pad_value=256), r"pad_value is \(256, 256, 256\); it must be whole numbers from 0 to 255"),
        (lambda: ResizeRule(pad_value=(0, -1, 0)), "from 0 to 255"),
        (lambda: ResizeRule(pad_value=()), "from 0 to 255"),
        (lambda: ResizeRule(pad_value=(1, 2, 3)).padding(4), "pad_value has 3 numbers, and the picture 4 channels"),
    ],
)
def test_wrong_counts_are_one_sentence(make: Callable[[], object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make()


def test_padding_of_any_count() -> None:
    assert ResizeRule(pad_value=7).padding(5) == (7,) * 5
    assert ResizeRule().padding(2) == (0, 0)
    assert ResizeRule(pad_value=(1, 2, 3, 4)).padding(4) == (1, 2, 3, 4)
    rule = ResizeRule(pad_value=(1, 2, 3, 4))
    assert ResizeRule.from_fields(Fields(rule.to_json()), 4) == rule
    with pytest.raises(FieldError, match="pad_value is a list of 4; it must be a list of 3 whole"):
        ResizeRule.from_fields(Fields(rule.to_json()))
