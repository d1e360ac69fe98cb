"""The postprocessing against float64: exact on dyadic numbers, within rounding elsewhere, and against torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import TargetUnavailableError, UsageError
from edgeseg.labels import LabelMap
from edgeseg.postprocess import Method, Region, compiled, labels_from_logits, scores_from_logits, undo_resize, warm_up
from edgeseg.postprocess.compiled import is_usable
from edgeseg.specs import Activation, PostprocessSpec, Size

F64 = NDArray[np.float64]
METHODS: tuple[Method, ...] = ("auto", "dense", "sparse")
if is_usable():
    METHODS = (*METHODS, "compiled")
SIDES = st.integers(1, 40)


def positions(n: int, out: int, align_corners: bool, span: tuple[int, float, float] | None = None) -> F64:
    """Source positions, written out pixel by pixel from the definition."""
    found = []
    for y in range(out):
        where, length = float(y), out
        if span is not None:
            where, length = span[1] + (y + 0.5) * span[2] / out - 0.5, span[0]
        if align_corners:
            where = where * (n - 1) / (length - 1) if length > 1 else 0.0
        else:
            where = (where + 0.5) * n / length - 0.5
        found.append(min(max(where, 0.0), n - 1.0))
    return np.array(found)


def matrix(n: int, places: F64) -> F64:
    weights = np.zeros((len(places), n))
    for row, place in enumerate(places):
        low = int(place)
        weights[row, low] += 1 - (place - low)
        weights[row, min(low + 1, n - 1)] += place - low
    return weights


def resized(logits: NDArray[Any], size: Size, align_corners: bool, region: Region | None = None) -> F64:
    """Bilinear resize in float64."""
    _, h, w = logits.shape
    rows, columns = None, None
    if region is not None:
        rows, columns = (
            (region.net_size[0], region.top, region.height),
            (region.net_size[1], region.left, region.width),
        )
    down = matrix(h, positions(h, size[0], align_corners, rows))
    across = matrix(w, positions(w, size[1], align_corners, columns))
    return cast(F64, down @ logits.astype(np.float64) @ across.T)


def check(labels: LabelMap, exact: F64, scale: float, threshold: float = 0.0) -> None:
    """Labels are those of `exact`, except where its margin is lost in float32."""
    if len(exact) == 1:
        exact = np.concatenate((np.full_like(exact, threshold), exact))
    best = exact.argmax(axis=0)
    mine = np.take_along_axis(exact, labels[None].astype(np.intp), axis=0)[0]
    assert labels.dtype == (np.uint8 if len(exact) <= 255 else np.uint16)
    assert labels.shape == exact.shape[1:]
    assert (exact.max(axis=0) - mine)[labels != best].max(initial=0.0) <= 1e-5 * scale


def make(rng: np.random.Generator, classes: int, size: Size, kind: str) -> NDArray[np.float32]:
    if kind == "smooth":
        coarse = rng.standard_normal((classes, size[0] // 6 + 2, size[1] // 6 + 2)).astype(np.float32)
        return np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_CUBIC) for plane in coarse])
    if kind == "ties":
        return rng.integers(-2, 3, (classes, *size)).astype(np.float32)
    return rng.standard_normal((classes, *size)).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.one_of(st.integers(1, 6), st.integers(7, 150)),
    logit_size=st.tuples(SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    align_corners=st.booleans(),
    kind=st.sampled_from(("smooth", "noise", "ties")),
)
def test_labels_are_those_of_the_float64_reference(
    seed: int, classes: int, logit_size: Size, size: Size, align_corners: bool, kind: str
) -> None:
    logits = make(np.random.default_rng(seed), classes, logit_size, kind)
    exact = resized(logits, size, align_corners)
    for method in METHODS:
        labels = labels_from_logits(logits, size, postprocess=PostprocessSpec(align_corners, 0.25), method=method)
        check(labels, exact, float(np.abs(logits).max()), 0.25)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 24),
    logit_size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    scale=st.tuples(st.sampled_from((1, 2, 4, 8)), st.sampled_from((1, 2, 4, 8))),
    align_corners=st.booleans(),
)
def test_ties_go_to_the_lowest_class_exactly(
    seed: int, classes: int, logit_size: Size, scale: Size, align_corners: bool
) -> None:
    """Small integers at dyadic scales are exact in float32, so nothing may differ, ties included."""
    logits = make(np.random.default_rng(seed), classes, logit_size, "ties")
    size = (logit_size[0] * scale[0], logit_size[1] * scale[1])
    if align_corners:
        size = ((logit_size[0] - 1) * scale[0] + 1, (logit_size[1] - 1) * scale[1] + 1)
    exact = resized(logits, size, align_corners)
    expected = exact[0] > 0.5 if classes == 1 else exact.argmax(axis=0)
    for method in METHODS:
        labels = labels_from_logits(logits, size, postprocess=PostprocessSpec(align_corners, 0.5), method=method)
        assert np.array_equal(labels, expected), method


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("classes", "logit_size", "size"),
    [
        (19, (32, 64), (256, 512)),
        (19, (33, 65), (250, 515)),
        (150, (16, 16), (128, 130)),
        (1000, (7, 9), (50, 67)),
        (5, (96, 80), (50, 33)),
    ],
)
@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_labels_are_those_of_torch(classes: int, logit_size: Size, size: Size, align_corners: bool, kind: str) -> None:
    torch = pytest.importorskip("torch")
    logits = make(np.random.default_rng(7), classes, logit_size, kind)
    batch = torch.from_numpy(logits).double()[None]
    exact = torch.nn.functional.interpolate(batch, size=size, mode="bilinear", align_corners=align_corners)[0].numpy()
    for method in METHODS:
        labels = labels_from_logits(logits, size, postprocess=PostprocessSpec(align_corners), method=method)
        check(labels, exact, float(np.abs(logits).max()))
        assert (labels != exact.argmax(axis=0)).mean() < 1e-4


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from((1, 2, 19)),
    logit_size=st.tuples(SIDES, SIDES),
    stride=st.sampled_from((1, 4, 8)),
    size=st.tuples(SIDES, SIDES),
    align_corners=st.booleans(),
    edges=st.tuples(*[st.floats(0.05, 1.0)] * 4),
)
def test_a_region_is_looked_up_in_the_network_s_pixels(
    seed: int,
    classes: int,
    logit_size: Size,
    stride: int,
    size: Size,
    align_corners: bool,
    edges: tuple[float, float, float, float],
) -> None:
    net = (logit_size[0] * stride, logit_size[1] * stride)
    height, width = edges[0] * net[0], edges[1] * net[1]
    region = Region(net, (net[0] - height) * edges[2], (net[1] - width) * edges[3], height, width)
    logits = make(np.random.default_rng(seed), classes, logit_size, "noise")
    exact = resized(logits, size, align_corners, region)
    for method in METHODS:
        labels = labels_from_logits(
            logits, size, postprocess=PostprocessSpec(align_corners), region=region, method=method
        )
        check(labels, exact, float(np.abs(logits).max()))


def test_a_region_over_the_whole_input_changes_nothing() -> None:
    logits = make(np.random.default_rng(3), 7, (12, 20), "noise")
    region = Region((96, 160), 0.0, 0.0, 96.0, 160.0)
    plain = labels_from_logits(logits, (50, 70), postprocess=PostprocessSpec())
    assert np.array_equal(plain, labels_from_logits(logits, (50, 70), postprocess=PostprocessSpec(), region=region))


def test_a_region_at_the_network_s_size_is_a_crop() -> None:
    logits = make(np.random.default_rng(4), 7, (12, 20), "noise")
    for align_corners in (False, True):
        postprocess = PostprocessSpec(align_corners)
        whole = labels_from_logits(logits, (96, 160), postprocess=postprocess)
        region = Region((96, 160), 10.0, 24.0, 60.0, 100.0)
        assert np.array_equal(
            labels_from_logits(logits, (60, 100), postprocess=postprocess, region=region), whole[10:70, 24:124]
        )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("classes", [1, 3, 255])
def test_equal_size_is_plain_argmax(classes: int, align_corners: bool) -> None:
    logits = make(np.random.default_rng(5), classes, (31, 300), "ties")
    expected = logits[0] > 0.5 if classes == 1 else logits.argmax(axis=0)
    for method in METHODS:
        labels = labels_from_logits(logits, (31, 300), postprocess=PostprocessSpec(align_corners, 0.5), method=method)
        assert np.array_equal(labels, expected)


def test_large_strides_and_many_tiles() -> None:
    logits = make(np.random.default_rng(6), 4, (3, 5), "noise")
    exact = resized(logits, (400, 1100), False)
    for method in METHODS:
        check(labels_from_logits(logits, (400, 1100), postprocess=PostprocessSpec(), method=method), exact, 4.0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from((1, 2, 19, 60)),
    logit_size=st.tuples(SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    align_corners=st.booleans(),
)
def test_scores_are_the_probability_of_the_label(
    seed: int, classes: int, logit_size: Size, size: Size, align_corners: bool
) -> None:
    logits = 5 * make(np.random.default_rng(seed), classes, logit_size, "noise")
    exact = resized(logits, size, align_corners)
    for method in METHODS:
        labels, scores = scores_from_logits(logits, size, postprocess=PostprocessSpec(align_corners), method=method)
        check(labels, exact, float(np.abs(logits).max()))
        if classes == 1:
            expected = 1 / (1 + np.exp(np.where(labels, -exact[0], exact[0])))
        else:
            power = np.exp(exact - exact.max(axis=0))
            expected = power.max(axis=0) / power.sum(axis=0)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_scores_below_a_high_threshold_are_those_of_the_other_label() -> None:
    labels, scores = scores_from_logits(
        np.full((1, 2, 2), 1.0, np.float32), (2, 2), postprocess=PostprocessSpec(threshold=2.0)
    )
    assert not labels.any()
    np.testing.assert_allclose(scores, 1 - 1 / (1 + np.exp(-1)), rtol=1e-6)


def probabilities(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    power = np.exp(logits - logits.max(axis=0))
    return np.asarray(power / power.sum(axis=0), np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from((1, 2, 19, 300)),
    logit_size=st.tuples(SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    align_corners=st.booleans(),
    activation=st.sampled_from(("sigmoid", "softmax")),
    kind=st.sampled_from(("noise", "one-hot")),
    edges=st.none() | st.tuples(*[st.floats(0.1, 1.0)] * 2),
)
def test_scores_of_probabilities_are_the_resized_values(
    seed: int,
    classes: int,
    logit_size: Size,
    size: Size,
    align_corners: bool,
    activation: Activation,
    kind: str,
    edges: tuple[float, float] | None,
) -> None:
    logits = 3 * make(np.random.default_rng(seed), classes, logit_size, "noise")
    if classes == 1:
        activation = "sigmoid"
    values = probabilities(logits, activation)
    if kind == "one-hot":
        values = np.rint(values) if classes == 1 else (values == values.max(axis=0)).astype(np.float32)
    region = None
    if edges is not None:
        region = Region(logit_size, 0.0, 0.0, edges[0] * logit_size[0], edges[1] * logit_size[1])
    exact = resized(values, size, align_corners, region)
    postprocess = PostprocessSpec(align_corners, activation=activation)
    for method in METHODS:
        labels, scores = scores_from_logits(values, size, postprocess=postprocess, region=region, method=method)
        alone = labels_from_logits(values, size, postprocess=postprocess, region=region, method=method)
        check(labels, exact, 1.0, 0.5)
        assert classes == 1 or (labels == alone).mean() > 0.9  # rounding decides where two classes are level
        expected = np.where(labels, exact[0], 1 - exact[0]) if classes == 1 else exact.max(axis=0)
        assert scores.dtype == np.float32
        assert 0 <= scores.min() <= scores.max() <= 1
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_scores_of_half_precision_and_of_values_beyond_probabilities() -> None:
    soft = PostprocessSpec(activation="softmax")
    half: Any = np.array([[[0.25, 1.0]], [[0.75, 0.0]]], np.float16)
    assert scores_from_logits(half, (1, 2), postprocess=soft)[1].tolist() == [[0.75, 1.0]]
    beyond = np.array([[[1.5, -0.5]], [[-0.5, -0.25]]], np.float32)
    labels, scores = scores_from_logits(beyond, (1, 2), postprocess=soft)
    assert (labels.tolist(), scores.tolist()) == ([[0, 1]], [[1.0, 0.0]])
    labels, scores = scores_from_logits(beyond[:1], (1, 2), postprocess=PostprocessSpec(activation="sigmoid"))
    assert (labels.tolist(), scores.tolist()) == ([[1, 0]], [[1.0, 1.0]])


def test_scores_of_one_probability_know_the_threshold_by_their_label_alone() -> None:
    values = np.array([[[0.25, 0.375, 0.875]]], np.float32)
    postprocess = PostprocessSpec(threshold=0.3125, activation="sigmoid")
    labels, scores = scores_from_logits(values, (1, 3), postprocess=postprocess)
    assert (labels.tolist(), scores.tolist()) == ([[0, 1, 1]], [[0.75, 0.375, 0.875]])


def test_a_softmax_of_one_channel_is_refused() -> None:
    for call in (labels_from_logits, scores_from_logits):
        with pytest.raises(UsageError, match="softmax was given for one channel"):
            call(ONES[:1], (3, 4), postprocess=PostprocessSpec(activation="softmax"))


def test_calls_side_by_side_do_not_disturb_each_other() -> None:
    maps = [make(np.random.default_rng(i), 19, (32, 64), "smooth") for i in range(4)]
    alone = [labels_from_logits(x, (256, 512), postprocess=PostprocessSpec(), method="dense") for x in maps]
    wrong: list[int] = []

    def work(index: int) -> None:
        for method in METHODS * 3:
            labels = labels_from_logits(maps[index], (256, 512), postprocess=PostprocessSpec(), method=method)
            wrong.append(int((labels != alone[index]).sum()))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 12 * len(METHODS)
    assert max(wrong) <= 3


def test_half_precision_and_strided_logits_are_taken() -> None:
    logits = make(np.random.default_rng(8), 5, (8, 8), "ties")
    expected = labels_from_logits(logits, (32, 32), postprocess=PostprocessSpec())
    half: Any = logits.astype(np.float16)
    strided = np.repeat(logits, 2, axis=2)[:, :, ::2]
    assert np.array_equal(labels_from_logits(half, (32, 32), postprocess=PostprocessSpec()), expected)
    assert np.array_equal(labels_from_logits(strided, (32, 32), postprocess=PostprocessSpec()), expected)


def test_the_input_is_left_as_it_was() -> None:
    logits = make(np.random.default_rng(9), 5, (8, 8), "noise")
    before = logits.copy()
    for method in METHODS:
        labels = labels_from_logits(logits, (8, 8), postprocess=PostprocessSpec(), method=method)
        labels[:] = 9
        scores_from_logits(logits, (30, 31), postprocess=PostprocessSpec(), method=method)
    assert np.array_equal(logits, before)


ONES = np.ones((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("logits", "size", "region", "words"),
    [
        (np.broadcast_to(np.float32(1), (65536, 1, 1)), (4, 4), None, "at most 65535 classes"),
        (ONES[0], (4, 4), None, "shape \\(classes, height, width\\)"),
        (ONES.tolist(), (4, 4), None, "got list"),
        (ONES.astype(np.float64), (4, 4), None, "float64"),
        (ONES, (0, 4), None, "at least 1"),
        (ONES * np.nan, (4, 4), None, "NaN or infinity"),
        (ONES * -np.inf, (4, 4), None, "NaN or infinity"),
        (ONES, (4, 4), Region((24, 32), 0.0, 0.0, 0.0, 4.0), "is empty"),
    ],
)
def test_what_cannot_be_is_refused(logits: Any, size: Size, region: Region | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        labels_from_logits(logits, size, postprocess=PostprocessSpec(), region=region)


def test_an_unknown_method_is_refused() -> None:
    unknown: Any = "fast"
    with pytest.raises(UsageError, match="none of auto, compiled, dense, sparse"):
        labels_from_logits(ONES, (4, 4), postprocess=PostprocessSpec(), method=unknown)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was loaded of the compiled postprocessing is forgotten, before and afterwards."""
    for cached in (compiled.load, compiled.why_not):
        cached.cache_clear()
    yield
    for cached in (compiled.load, compiled.why_not):
        cached.cache_clear()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not in this installation"), (b"\x7fELF of another machine", "does not load here")],
    ids=["missing", "broken"],
)
def test_where_it_is_not_compiled_numpy_runs_it_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, words: str
) -> None:
    library = tmp_path / "_labels.so"
    if content is not None:
        library.write_bytes(content)
    monkeypatch.setattr(compiled, "LIBRARY", library)
    logits = make(np.random.default_rng(1), 5, (8, 8), "noise")
    assert warm_up() == "numpy"
    assert words in compiled.why_not()
    assert labels_from_logits(logits, (32, 32), postprocess=PostprocessSpec()).shape == (32, 32)
    with pytest.raises(TargetUnavailableError, match=f"{words}.*install a C\\+\\+ compiler"):
        labels_from_logits(logits, (32, 32), postprocess=PostprocessSpec(), method="compiled")


def test_more_open_cells_than_are_gathered_at_once_and_many_classes() -> None:
    logits = make(np.random.default_rng(2), 3000, (3, 40), "noise")
    exact = resized(logits, (9, 130), False)
    for method in METHODS:
        check(labels_from_logits(logits, (9, 130), postprocess=PostprocessSpec(), method=method), exact, 5.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    more=st.tuples(SIDES, SIDES),
    align_corners=st.booleans(),
)
def test_a_bilinear_resize_is_undone(seed: int, before: Size, more: Size, align_corners: bool) -> None:
    logits = make(np.random.default_rng(seed), 3, before, "noise")
    large = resized(logits, (before[0] + more[0] - 1, before[1] + more[1] - 1), align_corners).astype(np.float32)
    found = undo_resize(large, before, align_corners=align_corners)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4)


def test_what_was_not_enlarged_is_not_undone() -> None:
    assert np.array_equal(undo_resize(ONES, (3, 4), align_corners=False), ONES)
    with pytest.raises(UsageError, match="logits of 3x4 were not enlarged from 3x5"):
        undo_resize(ONES, (3, 5), align_corners=False)
