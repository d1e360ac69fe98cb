"""Labels made on the device, dynamic graphs, batches and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.bundle import Bundle
from edgeseg.errors import SizeError, UsageError
from edgeseg.images import fit_image
from edgeseg.postprocess import Region, scores_from_logits
from edgeseg.predictor import Predictor
from edgeseg.specs import Activation, PostprocessSpec, ResizeMode, ResizeRule
from tests.predictor.fakes import (
    NET,
    Fake,
    expected,
    same,
)
from tests.runtimes.bundles import make_tiny_bundle, picture

if TYPE_CHECKING:
    from edgeseg.runtimes._base import LabelRequest


def test_an_engine_that_labels_on_its_device_makes_all_labels(fake: Fake) -> None:
    def asked(image: NDArray[np.uint8], of: Mapping[str, Any] | None = None, **options: object) -> list[LabelRequest]:
        predictor, session = fake(labels=True, of=of, **options)
        result = predictor(image)
        assert session.calls == [(session.calls[0][0], ("device labels",))]
        assert np.all(result.labels == 9)
        assert session.wanted[0][0] == result.size
        return session.wanted

    wide = {"resize": ResizeRule("letterbox")}
    assert asked(picture(NET)) == [(NET, None)]
    assert asked(picture((50, 70))) == [((50, 70), None)]
    assert asked(picture((50, 70)), output="network") == [(NET, None)]
    assert asked(picture((50, 70)), output=(9, 11)) == [((9, 11), None)]
    assert asked(picture((30, 90)), wide, output="network") == [(NET, None)]
    assert asked(picture((16, 48)), wide) == [((16, 48), Region(NET, 8, 0, 16, 48))]
    assert asked(picture((64, 40)), {"dynamic": True, "resize": ResizeRule("none")}) == [((64, 40), None)]


def test_an_engine_that_labels_on_its_device_gives_logits_for_scores(fake: Fake) -> None:
    predictor, session = fake(labels=True, scores=True)
    assert same(predictor(picture((50, 70))), expected(picture((50, 70))))
    assert session.calls == [((1, *NET, 3), ("logits",))]


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
def test_scores_are_of_the_activation_in_the_manifest(fake: Fake, activation: Activation, rule: ResizeMode) -> None:
    postprocess = PostprocessSpec(activation=activation)
    of = {"resize": ResizeRule(rule), "postprocess": postprocess}
    predictor, session = fake(of=of, labels=True, scores=True)
    image = np.ascontiguousarray(picture((40, 30)) % 2)  # the network returns pixels, so that they are 0 or 1
    result = predictor(image)
    fitted, region = fit_image(image, NET, ResizeRule(rule))
    logits = np.ascontiguousarray(fitted[::4, ::4].transpose(2, 0, 1)).astype(np.float32)
    labels, scores = scores_from_logits(logits, (40, 30), postprocess=postprocess, region=region)
    assert session.calls[-1][1] == ("logits",)
    assert (f"activation='{activation}'" in repr(predictor)) == (activation != "none")
    assert np.array_equal(result.labels, labels)
    assert result.scores is not None
    assert np.array_equal(result.scores, scores)
    assert bool((scores == 1).any()) == (activation != "none")


def test_a_batch_is_labelled_on_the_device_picture_by_picture(fake: Fake) -> None:
    predictor, session = fake(labels=True, of={"batch": 2})
    results = predictor.predict_batch([picture(NET), picture((50, 70)), picture((20, 30))])
    assert session.calls == [((2, *NET, 3), ("device labels",))] * 2
    assert session.wanted == [(NET, None), ((50, 70), None), ((20, 30), None)]
    assert [result.size for result in results] == [NET, (50, 70), (20, 30)]


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


def test_input_size_must_be_one_the_graph_takes(fake: Fake) -> None:
    with pytest.raises(SizeError, match="multiples of 8"):
        fake(of={"dynamic": True}, input_size=(60, 64))
    with pytest.raises(SizeError, match="takes only 32x48, got 64x64"):
        fake(input_size=(64, 64))
    fake(input_size=NET)


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
    monkeypatch.setattr(predictor._preparer, "load", noting("load", predictor._preparer.load))
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


@pytest.mark.parametrize("rule", [ResizeRule(), ResizeRule("letterbox")])
@pytest.mark.parametrize("size", ["network", "source", (20, 31), NET])
def test_one_picture_may_have_labels_of_another_size(rule: ResizeRule, size: Any, tmp_path: Path) -> None:
    bundle, image = make_tiny_bundle(tmp_path, resize=rule), picture((50, 70))
    with Predictor(bundle, output=(9, 9)) as predictor, Predictor(bundle, output=size) as other:
        assert np.array_equal(predictor(image, output=size).labels, other(image).labels)
        assert predictor(image).labels.shape == (9, 9)
        with pytest.raises(UsageError, match="output is"):
            predictor(image, output=(0, 3))
