"""One picture: sizes, letterbox, files, what belongs to the caller; opening and closing; the self test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.errors import (
    BundleError,
    InputError,
    ParityError,
    SizeError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from edgeseg.images import fit_image
from edgeseg.predictor import Failure, Predictor
from edgeseg.predictor import predictor as predictor_module
from edgeseg.resizing import resize
from edgeseg.results import Result
from edgeseg.runtimes import RuntimeOptions
from edgeseg.specs import ResizeRule
from tests.predictor.fakes import (
    NET,
    Fake,
    FakeSession,
    expected,
    same,
    shows,
)
from tests.runtimes.bundles import SAMPLE_SIZE, changed, picture


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
    predictor, session = fake(of={"resize": ResizeRule("letterbox")}, labels=True)
    predictor(picture((64, 96)))
    assert session.wanted == [((64, 96), None)]
    host, _ = fake(of={"resize": ResizeRule("letterbox")})
    assert same(host(picture((128, 192))), expected(picture((128, 192))))


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


@pytest.mark.parametrize("what", ["resize", "decode"])
def test_self_test_fails_where_pictures_are_fitted_otherwise(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """On a processor whose OpenCV resizes or decodes to other last bits, and whose labels happen to be the same."""

    def one_more(function: Callable[..., Any]) -> Callable[..., Any]:
        def changed_by_one(*arguments: Any, **options: Any) -> Any:
            array = np.array(function(*arguments, **options))
            array.reshape(-1)[0] ^= 1
            return array

        return changed_by_one

    if what == "resize":
        monkeypatch.setattr("edgeseg.images.resize", one_more(resize))
    else:
        monkeypatch.setattr(cv2, "imdecode", one_more(cv2.imdecode))
    with Predictor(tiny) as predictor, pytest.raises(ParityError, match=r"decodes or resizes .* OpenCV \d"):
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
    monkeypatch.setattr(predictor_module, "check_graph", lambda bundle, session: None)
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
