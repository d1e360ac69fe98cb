"""Scores of a bundle on labelled pictures, and label maps that are not right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.bundle import Bundle
from edgeseg.errors import InputError, UsageError
from edgeseg.evaluation import LabelledPictures, evaluate_bundle, read_labels
from edgeseg.metrics import ConfusionMatrix
from edgeseg.predictor import Predictor
from tests.runtimes.bundles import make_tiny_bundle, picture

SIZE = (40, 60)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)


@pytest.fixture
def predicted(bundle: Bundle, tmp_path: Path) -> list[NDArray[np.uint8]]:
    """Three pictures in ``images``; what the bundle makes of them, which is also written to ``labels``."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    found = []
    with Predictor(bundle) as predictor:
        for index in range(3):
            image = picture(SIZE, index)
            cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image[..., ::-1])
            found.append(predictor(image).labels)
            _write(tmp_path, index, found[-1])
    return found


def _write(folder: Path, index: int, labels: NDArray[np.uint8]) -> None:
    assert cv2.imwrite(str(folder / "labels" / f"{index}.png"), labels)


def _data(folder: Path, **options: Any) -> LabelledPictures:
    return LabelledPictures(folder / "images", folder / "labels", **options)


def test_scores_equal_a_confusion_matrix(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(4)
    for index, labels in enumerate(predicted):
        truth = np.where(rng.random(SIZE) < 0.3, rng.integers(0, 4, SIZE), labels).astype(np.uint8)
        truth[:5] = 255
        _write(tmp_path, index, truth)
        matrix.update(truth, labels, ignore=255)
    done: list[tuple[int, int]] = []
    found = evaluate_bundle(bundle, _data(tmp_path, ignore=255), progress=lambda *pair: done.append(pair))
    assert np.array_equal(found.matrix.counts, matrix.counts)
    assert np.array_equal(found.matrix.void, matrix.void)
    assert (found.images, found.target, found.failures) == (3, "ort", ())
    assert done == [(1, 3), (2, 3), (3, 3)]
    scores = found.scores()
    assert scores["void ignored"]["mIoU"] == matrix.miou
    harder = scores["predictions on void count as errors"]
    assert harder["mIoU"] == matrix.with_void_as_error().miou < matrix.miou
    assert [row["pixels"] for row in found.rows()] == matrix.counts.sum(axis=1).tolist()


@pytest.mark.parametrize(("ignore", "scored"), [(None, 4), (3, 3), (255, 4), (0, 4), (1, 4)])
def test_void_is_any_label(
    ignore: int | None, scored: int, bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    found = evaluate_bundle(bundle, _data(tmp_path, ignore=ignore))
    assert len(found.names) == scored
    assert found.scores()["void ignored"]["mIoU"] == 1.0
    kept = sum(int((labels != ignore).sum()) for labels in predicted)
    assert int(found.matrix.counts.sum()) == kept
    if ignore in (0, 1):
        assert np.isnan(found.matrix.iou[ignore])


def test_an_alias_becomes_the_targets_name(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    assert evaluate_bundle(bundle.path, _data(tmp_path, limit=1), target="onnxruntime").target == "ort"


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, num_classes=1)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    image = picture(SIZE)
    cv2.imwrite(str(tmp_path / "images" / "0.png"), image[..., ::-1])
    with Predictor(bundle) as predictor:
        _write(tmp_path, 0, predictor(image).labels * np.uint8(255))
    assert (
        evaluate_bundle(bundle, _data(tmp_path, positive_label=255)).scores()["void ignored"]["pixel accuracy"] == 1.0
    )
    with pytest.raises(InputError, match=r"label map '.*0\.png': the label map holds 255, expected 0\.\.1"):
        evaluate_bundle(bundle, _data(tmp_path))


@pytest.mark.parametrize("which", ["images", "labels"])
def test_unreadable_pictures_are_left_out_and_listed(
    which: str, bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    (tmp_path / which / "1.png").write_bytes(b"not a picture")
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert found.images == 2
    ((name, reason),) = found.failures
    assert name == str(tmp_path / "images" / "1.png")
    assert str(tmp_path / which / "1.png") in reason
    assert int(found.matrix.counts.sum()) == 2 * SIZE[0] * SIZE[1]
    assert found.to_json()["failures"] == [{"picture": name, "error": reason}]
    for index in (0, 2):
        (tmp_path / which / f"{index}.png").write_bytes(b"")
    with pytest.raises(InputError, match="none of the 3 pictures could be scored; the first: "):
        evaluate_bundle(bundle, _data(tmp_path))


def test_wrong_pairs(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    _write(tmp_path, 1, np.zeros((3, 3), np.uint8))
    (labels / "2.png").unlink()
    found = evaluate_bundle(bundle, LabelledPictures(images, labels))
    assert (found.images, int(found.matrix.counts.sum())) == (1, SIZE[0] * SIZE[1])
    size, lacking = (reason for _, reason in found.failures)
    assert re.search(r"label map '.*1\.png': label maps of 3x3 and 40x60", size)
    assert re.search(r"cannot read label map '.*2\.png': no such file", lacking)
    for file in labels.iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"3 of 3 pictures have no label map .*first: 0\.png.*expected STEM\.png"):
        evaluate_bundle(bundle, LabelledPictures(images, labels))
    with pytest.raises(InputError, match="no folder of label maps"):
        evaluate_bundle(bundle, LabelledPictures(images, tmp_path / "nothing"))
    with pytest.raises(InputError, match="no folder of pictures"):
        evaluate_bundle(bundle, LabelledPictures(tmp_path / "nothing", labels))


@pytest.mark.parametrize("options", [{"ignore": -1}, {"ignore": 65536}, {"positive_label": 70000}, {"limit": 0}])
def test_numbers_that_cannot_be(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        _data(tmp_path, **options)


def test_read_labels(tmp_path: Path) -> None:
    values = np.array([[0, 7, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / "good.png"), values)
    assert np.array_equal(read_labels(tmp_path / "good.png"), values)
    assert read_labels(tmp_path / "good.png", positive_label=7).tolist() == [[0, 1, 0]]
    cv2.imwrite(str(tmp_path / "color.png"), np.full((2, 3, 3), (1, 2, 3), np.uint8))
    deep = np.array([[0, 300, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert np.array_equal(read_labels(tmp_path / "deep.png"), deep)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"text")
    for name, message in (
        ("color", "is uint8 2x3x3 and holds colours, .* expected one 8-bit or 16-bit channel"),
        ("empty", "cannot be read as a picture"),
        ("text", "cannot be read as a picture"),
    ):
        with pytest.raises(InputError, match=message):
            read_labels(tmp_path / f"{name}.png")
