"""The seam: targets by name, third parties by entry point, and errors for the rest."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.bundle import Bundle
from edgeseg.cli import spread_targets
from edgeseg.errors import InputError, UnknownNameError, UsageError
from edgeseg.runtimes import RuntimeOptions, Session, open_session
from edgeseg.runtimes._base import CLOSED, SessionBase, SessionInfo, TensorInfo, refuse_unused
from edgeseg.targets import registered_targets, resolve_target
from tests.runtimes.bundles import make_tiny_bundle, picture


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


# --- one end for all


@pytest.fixture(params=["ort", "openvino", "torch"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """A session of every engine that runs here."""
    pytest.importorskip("onnxruntime" if request.param == "ort" else request.param)
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "openvino", "torch"))
    own = RuntimeOptions(network="tests.runtimes.bundles:tiny_network" if request.param == "torch" else None)
    opened = open_session(bundle, request.param, own)
    yield opened
    opened.close()


def test_running_into_a_close_is_the_same_refusal_on_every_engine(session: Session) -> None:
    """Threads run as fast as they can while the session is closed: whole answers, then one sentence."""
    wanted = session.run(picture()[None])["logits"]
    ended: list[str] = []

    def work() -> None:
        try:
            while True:
                np.testing.assert_array_equal(session.run(picture()[None])["logits"], wanted)
        except InputError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    session.close()
    for thread in threads:
        thread.join(10.0)
    assert ended == [CLOSED] * 4
    session.close()


class Slow(SessionBase):
    """Counts how many calls run at once, and when it was freed."""

    inputs = (TensorInfo("image", (1, 2, 2, 3), "uint8"),)
    outputs = (TensorInfo("logits", (1, 1, 1, 1), "float32"),)
    info = SessionInfo("slow", "slow 1", "nowhere", "fp32")

    def __init__(self, told: list[str]) -> None:
        self.now, self.most, self.told = 0, 0, told

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        self.now += 1
        self.most = max(self.most, self.now)
        time.sleep(0.05)
        self.now -= 1
        self.told.append("ran")
        return {}

    def _free(self) -> None:
        self.told.append("freed")


class Overlapping(Slow):
    overlaps = True


@pytest.mark.parametrize(("kind", "most"), [(Slow, 1), (Overlapping, 4)])
def test_engines_that_may_overlap_say_so(kind: type[Slow], most: int) -> None:
    told: list[str] = []
    session = kind(told)
    image = np.zeros((1, 2, 2, 3), np.uint8)

    def work() -> None:
        with contextlib.suppress(InputError):
            session.run(image)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    session.close()  # waits for what runs; those that wait for their turn are refused
    assert told[-1] == "freed"
    for thread in threads:
        thread.join(5.0)
    assert told.count("freed") == 1
    assert session.most == most


def test_a_session_that_is_dropped_frees_its_engine() -> None:
    told: list[str] = []
    session = Slow(told)
    session.run(np.zeros((1, 2, 2, 3), np.uint8))
    del session
    gc.collect()
    assert told == ["ran", "freed"]
