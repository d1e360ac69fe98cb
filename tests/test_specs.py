"""Sizes, input conventions and their JSON form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import SizeError, UsageError
from edgeseg.fields import Fields
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, check_divisor, parse_size

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
