"""The seam, as a contract: what holds for every engine, edgeseg's own and one of a package of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, InputError, TargetUnavailableError, UnknownNameError, UsageError
from edgeseg.export.config import PRECISIONS
from edgeseg.predictor import Predictor
from edgeseg.runtimes import Engine, RuntimeOptions, Session, engine, engines, open_session, resolve_target
from edgeseg.runtimes._base import CLOSED, SessionBase, SessionInfo, TensorInfo
from edgeseg.runtimes.registry import BUILT_IN
from tests.runtimes.bundles import make_tiny_bundle, picture

NAMES = [*(record.name for record in BUILT_IN), "Toy"]
"""edgeseg's own targets, and one of a package of its own: every contract holds for all of them."""

HERE = {"ort": "onnxruntime", "openvino": "openvino", "ncnn": "pnnx", "torch": "torch", "Toy": "onnx"}
"""Those that run without a GPU -> the module they need."""


@pytest.fixture(params=NAMES)
def record(request: pytest.FixtureRequest, toy_engine: Engine) -> Engine:
    """Every engine's record."""
    return engine(request.param)


@pytest.fixture(params=HERE)
def opened(request: pytest.FixtureRequest, toy_engine: Engine, tmp_path: Path) -> tuple[Engine, Bundle]:
    """Every engine that runs here, and a bundle for it."""
    pytest.importorskip(HERE[request.param])
    return engine(request.param), make_tiny_bundle(tmp_path, targets=dict.fromkeys(("ort", request.param)))


@pytest.fixture
def session(opened: tuple[Engine, Bundle]) -> Iterator[Session]:
    """A session of every engine that runs here."""
    record, bundle = opened
    network = "tests.runtimes.bundles:tiny_network" if "network" in record.options else None
    made = open_session(bundle, record.name, RuntimeOptions(network=network))
    yield made
    made.close()


# --- what a record says


def test_a_record_is_whole(record: Engine) -> None:
    assert record.description
    assert record.needs
    assert record.files
    assert all(record.options.values())
    assert all(alias == alias.lower() for alias in record.aliases)
    assert set(record.lowers_to) <= set(PRECISIONS) - {"fp32"}
    assert all(resolve_target(word) == record.name for word in record.words)


def test_a_record_refuses_options_that_no_engine_can_take(record: Engine) -> None:
    with pytest.raises(UsageError, match=f"engine '{record.name}' takes options that RuntimeOptions lacks: speed"):
        dataclasses.replace(record, options={"speed": "any"})


def test_a_record_with_a_graph_of_its_own_says_where_it_lies() -> None:
    with pytest.raises(UsageError, match="engine 'ort' has a graph of its own, but its record does not say where"):
        dataclasses.replace(engine("ort"), graph="")


def test_no_two_engines_share_a_word(toy_engine: Engine) -> None:
    words = [word.lower() for record in engines() for word in record.words]
    assert len(words) == len(set(words))


def test_every_target_checks_its_options_before_anything_else(tmp_path: Path, record: Engine) -> None:
    bundle = make_tiny_bundle(tmp_path)
    given = {"provider_options": {"a": "b"}, "weights": "x", "threads": 2}
    name, value = next((key, value) for key, value in given.items() if key not in record.options)
    takes = ", ".join(record.options)
    with pytest.raises(UsageError, match=rf"the {record.name} target has no use for {name}=.*\(it takes {takes}\)"):
        open_session(bundle, record.name, RuntimeOptions(**{name: value}))  # type: ignore[arg-type]


def test_a_look_is_an_answer(record: Engine) -> None:
    found = record.look()
    assert found.engine or found.reason
    assert found.usable == (not found.reason)
    assert found.devices or not found.usable


def test_its_files_are_in_its_bundle(opened: tuple[Engine, Bundle]) -> None:
    record, bundle = opened
    files = record.files_in(bundle)
    assert files
    assert record.size_in(bundle) == sum((bundle.path / name).stat().st_size for name in files)


def test_it_opens_no_bundle_that_was_not_exported_for_it(tmp_path: Path, record: Engine) -> None:
    bundle = make_tiny_bundle(tmp_path)
    if record.files_in(bundle) and not record.needs_gpu:  # it opens what every bundle holds
        open_session(bundle, record.name).close()
        return
    network = "tests.runtimes.bundles:tiny_network" if "network" in record.options else None
    with pytest.raises((BundleError, TargetUnavailableError)):
        open_session(bundle, record.name, RuntimeOptions(network=network))


def test_an_unknown_target_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown target 'opnvino': did you mean 'openvino'"):
        open_session(make_tiny_bundle(tmp_path), "opnvino")


# --- what a session does


def test_a_session_says_what_runs(opened: tuple[Engine, Bundle], session: Session) -> None:
    record, _ = opened
    assert session.info.target == record.name
    assert session.info.engine == record.look().engine
    assert session.info.precision == "fp32"
    (image,) = session.inputs
    assert (image.name, image.shape, image.dtype) == ("image", (1, 32, 48, 3), "uint8")
    assert [(tensor.name, tensor.dtype) for tensor in session.outputs] == [("logits", "float32")]


def test_logits_are_those_of_onnxruntime_and_the_callers_own(opened: tuple[Engine, Bundle], session: Session) -> None:
    reference = open_session(opened[1], "ort")
    wanted = [reference.run(picture(seed=seed)[None])["logits"] for seed in range(2)]
    reference.close()
    got = [session.run(picture(seed=seed)[None], ("logits",))["logits"] for seed in range(2)]
    for mine, theirs in zip(got, wanted, strict=True):  # the first one too, after the second ran
        assert mine.flags.writeable
        np.testing.assert_allclose(mine, theirs, rtol=0.0, atol=1e-5 * float(np.ptp(theirs)))


def test_a_session_refuses_what_its_graph_does_not_take(session: Session) -> None:
    with pytest.raises(InputError, match=r"the graph takes uint8 1x32x48x3 .* got uint8 1x32x40x3"):
        session.run(np.zeros((1, 32, 40, 3), np.uint8))
    with pytest.raises(InputError, match="the graph has outputs logits, asked for depth"):
        session.run(picture()[None], ("depth",))


@pytest.mark.usefixtures("opened")
def test_a_predictor_makes_the_bundles_labels(opened: tuple[Engine, Bundle]) -> None:
    record, bundle = opened
    network = "tests.runtimes.bundles:tiny_network" if "network" in record.options else None
    with Predictor(bundle, record.name.upper(), options=RuntimeOptions(network=network)) as predictor:
        outcome = predictor.self_test()
    assert (outcome.target, outcome.differing) == (record.name, 0)


# --- one end for all


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
