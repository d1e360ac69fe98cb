"""The seam: targets by name, third parties by entry point, and errors for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from edgeseg.bundle import Bundle
from edgeseg.cli import spread_targets
from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.runtimes import RuntimeOptions, Session, open_session
from edgeseg.runtimes._base import SessionBase, SessionInfo, TensorInfo, refuse_unused
from edgeseg.targets import registered_targets, resolve_target
from tests.runtimes.bundles import make_tiny_bundle


class OtherSession(SessionBase):
    """A session of somebody else's engine."""

    inputs = (TensorInfo("image", (1, 32, 48, 3), "uint8"),)
    outputs = (TensorInfo("logits", (1, 4, 4, 6), "float32"),)
    info = SessionInfo("hailo", "hailo 4", "Hailo-8", "int8")


def open_other(bundle: Bundle, options: RuntimeOptions) -> Session:
    refuse_unused(options, "hailo")
    return OtherSession()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A third party's target ``hailo``."""
    entry = metadata.EntryPoint("Hailo-8", f"{__name__}:open_other", "edgeseg.runtimes")
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: open_other)
    real = metadata.entry_points
    ours = {"group": "edgeseg.runtimes"}
    monkeypatch.setattr(metadata, "entry_points", lambda **which: [entry] if which == ours else real(**which))
    registered_targets.cache_clear()
    yield
    registered_targets.cache_clear()


@pytest.mark.usefixtures("registered")
def test_a_registered_target_opens(tmp_path: Path) -> None:
    session = open_session(make_tiny_bundle(tmp_path), "hailo-8")
    assert session.info.engine == "hailo 4"
    with pytest.raises(UnknownNameError, match="did you mean 'Hailo-8'"):
        resolve_target("halo-8")
    assert spread_targets(["export", "n", "--target", "ort", "HAILO-8"])[-2:] == ["--target", "HAILO-8"]


@pytest.mark.usefixtures("registered")
def test_a_registered_target_refuses_options_as_ours_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hailo target has no use for threads=2; leave it out \(it takes no"):
        open_session(make_tiny_bundle(tmp_path), "Hailo-8", RuntimeOptions(threads=2))


def test_an_unknown_target_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown target 'opnvino': did you mean 'openvino'"):
        open_session(make_tiny_bundle(tmp_path), "opnvino")


@pytest.mark.parametrize("target", ["ort", "openvino", "trt", "trt-rtx", "torch"])
def test_every_target_checks_its_options_before_anything_else(tmp_path: Path, target: str) -> None:
    bundle = make_tiny_bundle(tmp_path)
    options = RuntimeOptions(provider_options={"a": "b"}) if target != "ort" else RuntimeOptions(weights="x")
    with pytest.raises(UsageError, match=f"the {target} target has no use for"):
        open_session(bundle, target, options)
