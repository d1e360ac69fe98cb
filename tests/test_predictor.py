"""The Predictor: sizes, letterbox, batches, graphs that end in labels, threads, streams and the self test."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg import predictor as predictor_module
from edgeseg.bundle import MODEL_LABELS, Bundle, Manifest
from edgeseg.errors import (
    BundleError,
    EdgesegError,
    InputError,
    SizeError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from edgeseg.images import fit_image
from edgeseg.postprocess import labels_from_logits
from edgeseg.predictor import Failure, Predictor
from edgeseg.results import Result
from edgeseg.runtimes import RuntimeOptions, SessionInfo, TensorInfo
from edgeseg.runtimes._base import SessionBase
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, Size
from tests.runtimes.bundles import SAMPLE_SIZE, changed, make_tiny_bundle, picture

NET = (32, 48)
POSTPROCESS = PostprocessSpec()

Fake = Callable[..., tuple[Predictor, "FakeSession"]]


class FakeSession(SessionBase):
    """Logits are every fourth pixel's channels; labels, where it has them, are 9 everywhere, to tell them apart."""

    def __init__(self, manifest: Manifest, *, labels: bool = False) -> None:
        height, width = (None, None) if manifest.dynamic else manifest.input_size
        self.inputs = (TensorInfo("image", (manifest.batch, height, width, 3), "uint8"),)
        self.outputs = (TensorInfo("logits", (manifest.batch, 3, None, None), "float32"),)
        if labels:
            self.outputs += (TensorInfo("labels", (manifest.batch, height, width), "uint8"),)
        self.info = SessionInfo("ort", "fake 1.0", "nowhere", "fp32")
        self.label_size = manifest.label_size or manifest.input_size
        self.calls: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
        self.hold = threading.Event()
        self.hold.set()

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        assert self.hold.wait(10)
        self.calls.append((image.shape, names))
        logits = np.ascontiguousarray(image[:, ::4, ::4].transpose(0, 3, 1, 2)).astype(np.float32)
        found: dict[str, NDArray[Any]] = {
            "logits": logits,
            "labels": np.full((len(image), *self.label_size), 9, np.uint8),
        }
        return {name: found[name] for name in names}


def manifest(changes: Mapping[str, Any]) -> Manifest:
    plain = Manifest(
        name="fake",
        network="fake",
        num_classes=3,
        labels=("red", "green", "blue"),
        palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
        input_size=NET,
        logit_size=(8, 12),
        divisor=8,
        input=InputSpec(),
        resize=ResizeRule(),
        postprocess=POSTPROCESS,
        targets=("ort",),
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Make a Predictor on a `FakeSession`; returns both."""

    def make(
        *, ends_in_labels: bool = False, of: Mapping[str, Any] | None = None, **options: object
    ) -> tuple[Predictor, FakeSession]:
        data = manifest(of or {})
        session = FakeSession(data, labels=ends_in_labels)
        monkeypatch.setattr(predictor_module, "open_session", lambda *_: session)
        return Predictor(Bundle(Path("fake.edgeseg"), data), **options), session  # type: ignore[arg-type]

    return make


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)


def expected(
    image: NDArray[np.uint8], size: Size | None = None, *, rule: ResizeRule | None = None
) -> NDArray[np.uint8]:
    """What the fake network gives, step by step."""
    fitted, region = fit_image(image, NET, rule or ResizeRule())
    logits = np.ascontiguousarray(fitted[::4, ::4].transpose(2, 0, 1)).astype(np.float32)
    return labels_from_logits(logits, size or image.shape[:2], postprocess=POSTPROCESS, region=region)


def same(result: Result | Failure, labels: NDArray[np.uint8]) -> bool:
    assert isinstance(result, Result)
    return np.array_equal(result.labels, labels)


def shows(result: Result | Failure, image: NDArray[np.uint8]) -> bool:
    assert isinstance(result, Result)
    assert result.image is not None
    return np.array_equal(result.image, image)


def error_of(result: Result | Failure) -> EdgesegError:
    assert isinstance(result, Failure)
    return result.error


def wait_for(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())


def no_threads() -> bool:
    gc.collect()
    return not [thread for thread in threading.enumerate() if thread.name.startswith("edgeseg-")]


# One picture.


def test_array_at_source_size(fake: Fake) -> None:
    predictor, _ = fake()
    image = picture((50, 70))
    result = predictor(image)
    assert same(result, expected(image))
    assert result.labels.dtype == np.uint8
    assert result.size == (50, 70)
    assert result.names == ("red", "green", "blue")
    assert result.scores is None
    assert set(result.timings) == {"decode", "pre", "infer", "postprocess"}
    assert all(spent >= 0 for spent in result.timings.values())
    assert shows(result, image)


def test_bgr_is_rgb_turned(fake: Fake) -> None:
    predictor, _ = fake()
    image = picture((50, 70))
    turned = predictor(np.ascontiguousarray(image[..., ::-1]), color="bgr")
    assert same(turned, predictor(image).labels)
    assert shows(turned, image)


@pytest.mark.parametrize("kind", [str, Path])
def test_path(fake: Fake, tmp_path: Path, kind: type[str] | type[Path]) -> None:
    predictor, _ = fake()
    image = picture((40, 60))
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    result = predictor(kind(tmp_path / "a.png"))
    assert same(result, predictor(image).labels)
    assert result.source == str(tmp_path / "a.png")


def test_network_and_chosen_sizes(fake: Fake) -> None:
    image = picture((50, 70))
    network, _ = fake(output="network")
    result = network(image)
    assert same(result, expected(image, NET))
    assert shows(result, fit_image(image, NET, ResizeRule())[0])
    for size in ((20, 30), (100, 90)):
        chosen, _ = fake(output=size)
        result = chosen(image)
        assert same(result, expected(image, size))
        assert result.overlay().shape == (*size, 3)


def test_letterbox_cuts_the_bars_off_but_keeps_them_at_network_size(fake: Fake) -> None:
    rule = ResizeRule("letterbox")
    image = picture((30, 90))
    source, _ = fake(of={"resize": rule})
    assert same(source(image), expected(image, rule=rule))
    network, _ = fake(of={"resize": rule}, output="network")
    fitted, _ = fit_image(image, NET, rule)
    assert same(network(image), expected(fitted, NET))
    assert shows(network(image), fitted)


def test_letterbox_without_bars_is_a_plain_resize(fake: Fake) -> None:
    predictor, session = fake(of={"resize": ResizeRule("letterbox"), "label_size": (64, 96)}, ends_in_labels=True)
    assert np.all(predictor(picture((64, 96))).labels == 9)
    assert session.calls[-1][1] == ("labels",)
    assert same(predictor(picture((128, 192))), expected(picture((128, 192))))


def test_rule_none_refuses_another_size(fake: Fake) -> None:
    predictor, _ = fake(of={"resize": ResizeRule("none")})
    assert same(predictor(picture(NET)), expected(picture(NET)))
    with pytest.raises(SizeError):
        predictor(picture((40, 48)))


def test_scores(fake: Fake) -> None:
    predictor, _ = fake(scores=True)
    image = picture((50, 70))
    result = predictor(image)
    assert same(result, expected(image))
    assert result.scores is not None
    assert result.scores.shape == (50, 70)
    assert result.scores.dtype == np.float32
    assert result.scores.min() >= 1 / 3 - 1e-5
    assert result.scores.max() <= 1.0 + 1e-6


def test_picture_is_kept_apart_from_the_callers_buffer(fake: Fake) -> None:
    predictor, _ = fake()
    buffer = picture(NET)
    result = predictor(buffer)
    before = buffer.copy()
    buffer[...] = 0
    assert shows(result, before)
    without, _ = fake(keep_image=False)
    assert without(before).image is None


def test_not_a_picture(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    with pytest.raises(InputError):
        predictor(np.zeros((4, 5, 7), np.uint8))
    with pytest.raises(InputError):
        predictor(tmp_path / "gone.png")


# Graphs that end in labels.


def test_damage_and_limits_of_files(tiny: Bundle, tmp_path: Path) -> None:
    data = bytearray(
        cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))[1].tobytes()
    )
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.jpg"
    file.write_bytes(data)
    with Predictor(tiny) as predictor:
        (note,) = predictor(file).damaged
        assert note.startswith("part of the picture is lost or wrong")
        assert [item.damaged for item in predictor.stream(tmp_path / "in") if isinstance(item, Result)] == [(note,)]
        assert [item.damaged for item in predictor.stream([file]) if isinstance(item, Result)] == [(note,)]
        assert predictor(np.zeros((9, 9, 3), np.uint8)).damaged == ()
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"strict": True}, "is damaged"),
        ({"max_pixels": 76_799}, "above 76799 pixels"),
    ]
    for options, words in refusals:
        with Predictor(tiny, **options) as predictor:
            with pytest.raises(InputError, match=words):
                predictor(file)
            for source in (tmp_path / "in", [file]):
                (failure,) = predictor.stream(source)
                assert isinstance(failure, Failure)
                assert words in str(failure.error)
    with pytest.raises(UsageError, match="max_pixels is 0"):
        Predictor(tiny, max_pixels=0)


def test_graph_labels_are_taken_only_where_they_fit(fake: Fake) -> None:
    with_labels = {"label_size": NET}

    def asked(image: NDArray[np.uint8], of: Mapping[str, Any] | None = None, **options: object) -> tuple[str, ...]:
        predictor, session = fake(ends_in_labels=True, of={**with_labels, **(of or {})}, **options)
        predictor(image)
        names: tuple[str, ...] = session.calls[-1][1]
        return names

    wide = {"resize": ResizeRule("letterbox")}
    assert asked(picture(NET)) == ("labels",)
    assert asked(picture((50, 70)), output="network") == ("labels",)
    assert asked(picture((50, 70)), output=NET) == ("labels",)
    assert asked(picture((30, 90)), wide, output="network") == ("labels",)
    assert asked(picture((50, 70))) == ("logits",)
    assert asked(picture(NET), scores=True) == ("logits",)
    assert asked(picture((30, 90)), wide, output=NET) == ("logits",)
    assert asked(picture(NET), {"dynamic": True}, input_size=(64, 48)) == ("logits",)


def test_graph_labels_equal_the_host_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    from edgeseg.runtimes.ort.session import OrtSession

    bundle = make_tiny_bundle(tmp_path, targets=("ort", "trt"))
    images = [picture(NET, seed) for seed in range(5)]
    with Predictor(bundle) as host:
        wanted = [host(image).labels for image in images]
    full = onnxruntime.InferenceSession(str(bundle.file(MODEL_LABELS)), providers=["CPUExecutionProvider"])
    session = OrtSession(full, "fp32", onnxruntime.__version__, None)
    monkeypatch.setattr(predictor_module, "open_session", lambda *_: session)
    asked: list[Any] = []
    run = session.run

    def spy(image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        asked.append(names)
        return run(image, names)

    monkeypatch.setattr(session, "run", spy)
    with Predictor(bundle) as device:
        got = [device(image).labels for image in images]
    assert set(asked) == {("labels",)}
    assert [int(np.count_nonzero(a != b)) for a, b in zip(wanted, got, strict=True)] == [0] * 5
    assert len(np.unique(wanted[0])) > 1


def test_one_batch_may_need_both_outputs(fake: Fake) -> None:
    predictor, session = fake(ends_in_labels=True, of={"label_size": NET, "batch": 2})
    first, second = predictor.predict_batch([picture(NET), picture((50, 70))])
    assert session.calls == [((2, *NET, 3), ("labels", "logits"))]
    assert np.all(first.labels == 9)
    assert same(second, expected(picture((50, 70))))


# Sizes of dynamic graphs.


def test_dynamic_graph_takes_the_pictures_own_size(fake: Fake) -> None:
    predictor, session = fake(of={"dynamic": True, "resize": ResizeRule("none")})
    assert predictor(picture((40, 56))).size == (40, 56)
    assert session.calls[-1][0] == (1, 40, 56, 3)
    with pytest.raises(SizeError, match="multiples of 8, got 41x56; use 40x56 or 48x56"):
        predictor(picture((41, 56)))


def test_dynamic_graph_with_another_rule_takes_the_recorded_or_given_size(fake: Fake) -> None:
    predictor, session = fake(of={"dynamic": True})
    predictor(picture((41, 56)))
    assert session.calls[-1][0] == (1, *NET, 3)
    predictor, session = fake(of={"dynamic": True}, input_size=(64, 64))
    assert predictor(picture((41, 56))).size == (41, 56)
    assert session.calls[-1][0] == (1, 64, 64, 3)


def test_input_size_must_fit(fake: Fake) -> None:
    with pytest.raises(SizeError, match="multiples of 8"):
        fake(of={"dynamic": True}, input_size=(60, 64))
    with pytest.raises(SizeError, match="takes only 32x48, got 64x64"):
        fake(input_size=(64, 64))
    fake(input_size=NET)


# Batches and threads.


def test_batches_are_filled_and_equal_single_pictures(fake: Fake) -> None:
    predictor, session = fake(of={"batch": 4})
    images = [picture((50, 70), seed) for seed in range(6)]
    results = predictor.predict_batch(images)
    assert all(same(result, expected(image)) for result, image in zip(results, images, strict=True))
    assert [shape[0] for shape, _ in session.calls] == [4, 4]
    assert same(predictor(images[0]), expected(images[0]))
    assert predictor.predict_batch([]) == []


def test_a_batch_is_decoded_when_its_turn_comes(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, session = fake(of={"batch": 2}, output="network")
    order: list[str] = []

    def noting(word: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            order.append(word)
            return call(*given)

        return noted

    monkeypatch.setattr(session, "run", noting("run", session.run))
    monkeypatch.setattr(predictor, "_load", noting("load", predictor._load))
    assert len(predictor.predict_batch([picture(NET)] * 4)) == 4
    assert order == ["load", "load", "run", "load", "load", "run"]


def test_batch_of_differing_sizes_runs_apart(fake: Fake) -> None:
    predictor, session = fake(of={"batch": 2, "dynamic": True, "resize": ResizeRule("none")})
    sizes = [(32, 48), (40, 48), (40, 48), (40, 48)]
    assert [result.size for result in predictor.predict_batch([picture(size) for size in sizes])] == sizes
    assert [shape[1:3] for shape, _ in session.calls] == [(32, 48), (40, 48), (40, 48)]


def test_many_threads_get_equal_results(tiny: Bundle) -> None:
    images = [picture((50, 70), seed) for seed in range(8)]
    with Predictor(tiny, threads=1) as predictor:
        wanted = [predictor(image).labels for image in images]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(predictor, images * 5))
    assert all(same(result, wanted[index % 8]) for index, result in enumerate(results))


# Streams.


def test_stream_keeps_order_and_names(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    images = [picture((50, 70), seed) for seed in range(12)]
    for index, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
    results = list(predictor.stream(tmp_path))
    assert all(same(result, expected(image)) for result, image in zip(results, images, strict=True))
    assert [result.source for result in results] == [str(tmp_path / f"{index}.png") for index in range(12)]
    assert no_threads()


def test_stream_reports_failures_in_their_place(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake(of={"batch": 4})
    items = [picture(NET), tmp_path / "gone.png", picture(NET, 1), np.zeros((2, 2, 9), np.uint8), picture(NET, 2)]
    results = list(predictor.stream(items))
    assert [type(result) for result in results] == [Result, Failure, Result, Failure, Result]
    assert [result.source for result in results] == ["0", str(tmp_path / "gone.png"), "2", "3", "4"]
    assert isinstance(error_of(results[1]), InputError)
    assert same(results[4], expected(picture(NET, 2)))


def test_stream_reports_sizes_that_do_not_fit(fake: Fake) -> None:
    predictor, _ = fake(of={"resize": ResizeRule("none")})
    good, bad = predictor.stream([picture(NET), picture((40, 40))])
    assert isinstance(good, Result)
    assert isinstance(error_of(bad), SizeError)


def test_stream_raises_when_asked_to(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    stream = predictor.stream([picture(NET), tmp_path / "gone.png", picture(NET)], on_error="raise")
    assert isinstance(next(stream), Result)
    with pytest.raises(InputError):
        next(stream)
    assert no_threads()


def test_stream_opens_its_source_at_once(fake: Fake, tmp_path: Path) -> None:
    predictor, _ = fake()
    with pytest.raises(InputError):
        predictor.stream(tmp_path / "gone")
    with pytest.raises(UsageError):
        predictor.stream([picture(NET)], queue=0)


def test_stream_fills_batches(fake: Fake) -> None:
    predictor, session = fake(of={"batch": 4})
    images = [picture((50, 70), seed) for seed in range(6)]
    results = list(predictor.stream(images))
    assert all(same(result, expected(image)) for result, image in zip(results, images, strict=True))
    assert len(session.calls) == 2


def test_stream_early_break_leaves_no_thread(fake: Fake) -> None:
    predictor, session = fake()
    for result in predictor.stream(picture(NET, seed % 50) for seed in itertools.count()):
        assert isinstance(result, Result)
        if len(session.calls) >= 3:
            break
    assert no_threads()


def test_stream_error_of_the_engine_surfaces(fake: Fake) -> None:
    predictor, _ = fake()
    predictor.close()
    with pytest.raises(InputError, match="closed"):
        list(predictor.stream([picture(NET)]))
    assert no_threads()


def test_stream_stop_event(fake: Fake) -> None:
    predictor, _ = fake()
    stop = threading.Event()
    seen = 0
    for _ in predictor.stream((picture(NET) for _ in itertools.count()), stop=stop):
        seen += 1
        if seen == 3:
            stop.set()
    assert seen == 3
    assert no_threads()


def test_live_stream_drops_late_pictures_for_a_slow_engine(fake: Fake) -> None:
    predictor, session = fake()
    sent = threading.Event()

    def camera() -> Iterator[NDArray[np.uint8]]:
        for seed in range(30):
            yield picture(NET, seed)
        sent.set()

    session.hold.clear()
    with predictor.stream(camera(), live=True) as stream:
        assert sent.wait(10)  # the engine stands still, the camera does not wait for it
        session.hold.set()
        sources = [result.source for result in stream]
        assert stream.dropped == 30 - len(sources)
    assert len(sources) <= 3
    assert sources[-1] == "29"
    assert same(predictor(picture(NET, 29)), expected(picture(NET, 29)))


def test_live_stream_gives_a_slow_consumer_the_newest(fake: Fake) -> None:
    predictor, session = fake()
    with predictor.stream((picture(NET, seed) for seed in range(40)), live=True) as stream:
        assert wait_for(lambda: session.calls and stream._channels[-1]._finished)
        assert next(stream).source == "39"
        assert list(stream) == []
        assert stream.dropped == 39


def test_stream_leaves_an_opened_source_to_its_owner(fake: Fake, tmp_path: Path) -> None:
    from edgeseg.sources import open_source

    predictor, _ = fake()
    cv2.imwrite(str(tmp_path / "a.png"), picture(NET))
    source = open_source(tmp_path)
    closed: list[bool] = []
    source.close = lambda: closed.append(True)  # type: ignore[method-assign]
    assert len(list(predictor.stream(source))) == 1
    assert closed == []


def test_stream_of_a_reused_buffer(fake: Fake) -> None:
    predictor, _ = fake(output="network")
    buffer = np.empty((*NET, 3), np.uint8)

    def camera() -> Iterator[NDArray[np.uint8]]:
        for seed in range(10):
            buffer[...] = picture(NET, seed)
            yield buffer

    for seed, result in enumerate(predictor.stream(camera())):
        assert same(result, expected(picture(NET, seed)))
        assert shows(result, picture(NET, seed))


# Opening, closing, telling.


def test_real_bundle_by_path(tiny: Bundle) -> None:
    with Predictor(tiny.path, "onnxruntime", threads=1) as predictor:
        assert predictor.info.target == "ort"
        assert predictor.manifest.name == "tiny"
        assert predictor.names == tiny.manifest.labels
        assert predictor(picture((50, 70))).size == (50, 70)
        assert repr(predictor).startswith("Predictor('tiny', target='ort', engine='onnxruntime ")
    with pytest.raises(InputError, match="closed"):
        predictor(picture(NET))
    predictor.close()


def test_self_test(tiny: Bundle) -> None:
    with Predictor(tiny, output=(7, 9), scores=True) as predictor:
        outcome = predictor.self_test()
    assert (outcome.target, outcome.differing, outcome.pixels, outcome.images) == (
        "ort",
        0,
        SAMPLE_SIZE[0] * SAMPLE_SIZE[1],
        1,
    )
    assert outcome.agreement == 1.0
    assert outcome.engine.startswith("onnxruntime")


def test_self_test_counts_what_differs(tiny: Bundle) -> None:
    file = tiny.path / "sample_labels.png"
    labels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    assert labels is not None
    labels[0, :5] = 200
    cv2.imwrite(str(file), labels)
    with Predictor(tiny) as predictor, pytest.raises(BundleError, match="is not the file that was exported"):
        predictor.self_test()
    with Predictor(changed(tiny)) as predictor:
        assert predictor.self_test().differing == 5
    cv2.imwrite(str(file), labels[:8])
    with Predictor(changed(tiny)) as predictor, pytest.raises(BundleError, match="does not fit"):
        predictor.self_test()
    file.write_bytes(b"no picture")
    with (
        Predictor(changed(tiny)) as predictor,
        pytest.raises(BundleError, match=r"sample_labels\.png .*export it again"),
    ):
        predictor.self_test()


def test_changed_bundle_is_refused_unless_unchecked(tiny: Bundle) -> None:
    (tiny.path / "sample.png").write_bytes(b"changed")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        Predictor(tiny.path)
    with Predictor(tiny.path, check=False) as predictor:
        predictor(picture(NET))


def test_options_and_their_short_forms(monkeypatch: pytest.MonkeyPatch, tiny: Bundle) -> None:
    given: list[RuntimeOptions] = []

    def opened(bundle: Bundle, target: str, options: RuntimeOptions) -> FakeSession:
        given.append(options)
        return FakeSession(bundle.manifest)

    monkeypatch.setattr(predictor_module, "open_session", opened)
    monkeypatch.setattr(predictor_module, "_check_graph", lambda bundle, session: None)
    Predictor(tiny, threads=2, options=RuntimeOptions(hint="latency"))
    Predictor(tiny, device="cpu", threads=1, options=RuntimeOptions(device="cpu"))
    assert given == [RuntimeOptions(threads=2, hint="latency"), RuntimeOptions(device="cpu", threads=1)]
    with pytest.raises(UsageError, match=r"threads is 2, but options.threads is 4"):
        Predictor(tiny, threads=2, options=RuntimeOptions(threads=4))


@pytest.mark.parametrize("output", ["sauce", (0, 5), (5,), (1.5, 2), None])
def test_impossible_outputs(tiny: Bundle, output: object) -> None:
    with pytest.raises(UsageError, match="output is"):
        Predictor(tiny, output=output)  # type: ignore[arg-type]


def test_unknown_target_and_missing_engine(tiny: Bundle) -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        Predictor(tiny, "openvinno")
    with pytest.raises(TargetUnavailableError):
        Predictor(tiny, device="cuda")
