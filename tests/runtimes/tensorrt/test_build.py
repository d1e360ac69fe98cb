"""How engines are built: what a plan's key holds of the settings, and what is logged meanwhile."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import EdgesegError
from edgeseg.runtimes import RuntimeOptions, open_session
from edgeseg.runtimes.tensorrt.build import BuildSettings, Profile, profile_for
from tests.runtimes.bundles import make_tiny_bundle
from tests.runtimes.fakes import FakeTensorRT

PROFILE = profile_for((64, 96), 8)
OTHER: dict[str, Any] = {"NoneType": PROFILE, "bool": True, "str": "other", "int": 3, "tuple": ("8.9",)}
"""Type of a setting's default -> another value."""


@pytest.mark.parametrize("name", [field.name for field in fields(BuildSettings)])
def test_every_setting_is_in_the_words_that_a_plan_is_kept_by(name: str) -> None:
    plain = BuildSettings()
    assert str(replace(plain, **{name: OTHER[type(getattr(plain, name)).__name__]})) != str(plain)


@pytest.mark.parametrize("at", ["smallest", "best", "largest"])
def test_every_end_of_a_profile_is_in_them_too(at: str) -> None:
    for axis in (0, 1, 2):
        for shapes in ([at], ["smallest", "best", "largest"]):  # a batch is that of all three
            changes = {key: _grown(getattr(PROFILE, key), axis) for key in shapes}
            if axis or len(shapes) == 3:
                assert str(BuildSettings(profile=replace(PROFILE, **changes))) != str(BuildSettings(profile=PROFILE))


def _grown(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])


@pytest.mark.parametrize(
    ("size", "divisor", "smallest"), [((512, 1024), 32, (128, 256)), ((96, 96), 32, (32, 32)), ((90, 30), 1, (22, 7))]
)
def test_a_profile_goes_from_a_quarter_to_twice_in_multiples(
    size: tuple[int, int], divisor: int, smallest: tuple[int, int]
) -> None:
    height, width = size
    expected = Profile((2, *smallest, 4), (2, height, width, 4), (2, 2 * height, 2 * width, 4))
    assert profile_for(size, divisor, 2, 4) == expected


@pytest.mark.parametrize("what", ["Builder", "parse", "build", "Runtime", "deserialize", "create_execution_context"])
def test_what_tensorrt_logs_as_an_error_is_said_once_by_the_sentence(
    tmp_path: Path, tensorrt: FakeTensorRT, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Where nobody configured logging, Python writes warnings and errors of any logger to standard error."""
    caplog.set_level(logging.DEBUG, "edgeseg")
    tensorrt.refuse = {what}
    bundle = make_tiny_bundle(tmp_path, targets=("trt",))
    with pytest.raises(EdgesegError):
        open_session(bundle, "trt", RuntimeOptions(cache_dir=str(tmp_path / "plans")))
    assert {record.levelname for record in caplog.records if record.name.startswith("edgeseg")} <= {"DEBUG", "INFO"}
    assert what == "parse" or f"fake refusal in {what}" in caplog.text
