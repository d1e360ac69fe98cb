"""Scores against the programs that publish them: torchmetrics, and Cityscapes' own evaluation.

A test is skipped where its program is missing; docs/evaluation.md says which versions agreed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.datasets import DATASETS
from edgeseg.label_files import read_label_file
from edgeseg.metrics import ConfusionMatrix

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
CLASSES = 19


def _pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A label map of 19 classes and void (255), and a prediction that is mostly right."""
    rng = np.random.default_rng(seed)
    true = np.kron(rng.integers(0, CLASSES, (8, 8)), np.ones((4, 6), int))
    pred = np.where(rng.random(true.shape) < 0.3, rng.integers(0, CLASSES, true.shape), true)
    true = np.where(rng.random(true.shape) < 0.1, 255, true)
    return true.astype(np.uint8), pred.astype(np.uint8)


PAIRS = [_pair(seed) for seed in range(4)]


@pytest.fixture
def matrix() -> ConfusionMatrix:
    found = ConfusionMatrix(CLASSES)
    for true, pred in PAIRS:
        found.update(true, pred, 255)
    return found


def _tensors() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    true, pred = (np.stack(each).astype(np.int64) for each in zip(*PAIRS, strict=True))
    return torch.from_numpy(pred), torch.from_numpy(true)


def test_iou_and_accuracy_are_torchmetrics(matrix: ConfusionMatrix) -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    options = {"num_classes": CLASSES, "ignore_index": 255}
    pred, true = _tensors()
    iou = classification.MulticlassJaccardIndex(**options, average="none")(pred, true)
    weighted = classification.MulticlassJaccardIndex(**options, average="weighted")(pred, true)
    recall = classification.MulticlassAccuracy(**options, average="none")(pred, true)
    accuracy = classification.MulticlassAccuracy(**options, average="micro")(pred, true)
    counts = classification.MulticlassConfusionMatrix(**options)(pred, true)
    assert np.array_equal(matrix.counts[:, :-1], counts.numpy())
    np.testing.assert_allclose(matrix.iou, iou.numpy(), rtol=1e-6)
    np.testing.assert_allclose(matrix.miou, float(iou.mean()), rtol=1e-6)
    np.testing.assert_allclose(matrix.frequency_weighted_iou, float(weighted), rtol=1e-6)
    np.testing.assert_allclose(matrix.class_accuracy, recall.numpy(), rtol=1e-6)
    np.testing.assert_allclose(matrix.pixel_accuracy, float(accuracy), rtol=1e-6)


def test_iou_is_that_of_cityscapes_own_evaluation(
    matrix: ConfusionMatrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYSCAPES_DATASET", str(tmp_path))
    published = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    args = published.args
    args.evalInstLevelScore, args.evalPixelAccuracy, args.quiet = False, False, True
    confusion: Any = published.generateMatrix(args)
    ids = np.full(256, 3, np.uint8)
    ids[:CLASSES] = [labels.trainId2label[train_id].id for train_id in range(CLASSES)]
    for index, (true, pred) in enumerate(PAIRS):
        names = [str(tmp_path / f"{kind}{index}.png") for kind in ("pred", "true")]
        for name, each in zip(names, (pred, true), strict=True):
            cv2.imwrite(name, ids[each])
        published.evaluatePair(*names, confusion, {}, {}, args)
        read = read_label_file(Path(names[1]), DATASETS["cityscapes"].layouts[0].rules)
        assert np.array_equal(np.where(read.labels == read.void, 255, read.labels), true)
    iou = [published.getIouScoreForLabel(int(ids[c]), confusion, args) for c in range(CLASSES)]
    np.testing.assert_allclose(matrix.iou, iou, rtol=1e-12)


def test_the_figures_are_fixed(matrix: ConfusionMatrix) -> None:
    """The same scores by another way: one pixel after another, in numpy alone."""
    true, pred = (np.concatenate([each.ravel() for each in maps]) for maps in zip(*PAIRS, strict=True))
    pred, true = pred[true != 255], true[true != 255]
    both = [((true == c) & (pred == c)).sum() for c in range(CLASSES)]
    either = [((true == c) | (pred == c)).sum() for c in range(CLASSES)]
    share = [(true == c).mean() for c in range(CLASSES)]
    iou = np.divide(both, either)
    np.testing.assert_allclose(matrix.iou, iou, rtol=1e-12)
    np.testing.assert_allclose(matrix.frequency_weighted_iou, (iou * share).sum(), rtol=1e-12)
    np.testing.assert_allclose(matrix.pixel_accuracy, (true == pred).mean(), rtol=1e-12)
