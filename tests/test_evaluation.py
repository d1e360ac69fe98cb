"""Scores of a bundle on labelled pictures, and label maps that are not right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.boundaries import BoundaryMatrix
from edgeseg.bundle import Bundle
from edgeseg.errors import InputError, UsageError
from edgeseg.evaluation import LabelledPictures, evaluate_bundle, read_labels
from edgeseg.intervals import FEWEST, PictureCounts
from edgeseg.labelled import OWN_SIZE, check_sizes
from edgeseg.metrics import ConfusionMatrix
from edgeseg.predictor import Predictor
from edgeseg.specs import ResizeRule
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
    assert re.search(r"label map '.*1\.png' is 3x3, its picture 40x60; their aspect ratios must agree", size)
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


def _noisy(predicted: list[NDArray[np.uint8]], classes: int = 4) -> list[NDArray[np.uint8]]:
    """Labels that agree with most of a prediction."""
    rng = np.random.default_rng(1)
    return [np.where(rng.random(SIZE) < 0.3, rng.integers(0, classes, SIZE), p).astype(np.uint8) for p in predicted]


def _expected(truths: list[NDArray[np.uint8]], predicted: list[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Count true against predicted classes where the truth is not 255."""
    counts = np.zeros((4, 4), np.int64)
    for truth, labels in zip(truths, predicted, strict=True):
        np.add.at(counts, (truth[truth != 255], labels[truth != 255]), 1)
    return counts


@pytest.mark.parametrize("way", ["reduce_zero_label", "csv", "json", "colours", "palette", "16 bits", "suffix"])
def test_each_way_to_store_labels_gives_the_same_counts(
    way: str, bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    truths, options = _noisy(predicted), dict[str, Any]()
    palette = np.array([*bundle.manifest.palette, (1, 2, 3)], np.uint8)
    for index, truth in enumerate(truths):
        truth[:4] = 255
        at = np.where(truth == 255, 4, truth)
        stored: NDArray[Any] = truth
        if way == "reduce_zero_label":
            stored, options = (truth + np.uint8(1)).astype(np.uint8), {"reduce_zero_label": True}
        elif way in ("csv", "json"):
            stored = np.array([9, 30, 200, 0, 77], np.uint8)[at]
            text = {"csv": "9,0\n30,1\n200,2\n0,3\n77,void", "json": '{"9": 0, "30": 1, "200": 2, "0": 3, "77": null}'}
            (tmp_path / f"map.{way}").write_text(text[way], encoding="utf-8")
            options = {"label_map": tmp_path / f"map.{way}"}
        elif way in ("colours", "palette"):
            stored = palette[at][..., ::-1]
            names = bundle.manifest.labels
            lines = [
                f"#{r:02x}{g:02x}{b:02x},{n}" for (r, g, b), n in zip(palette.tolist(), (*names, "void"), strict=True)
            ]
            (tmp_path / "map.csv").write_text("\n".join(lines), encoding="utf-8")
            options = {"label_map": tmp_path / "map.csv"}
            if way == "palette":  # of the bundle, which has no colour for void
                truth[:4] = predicted[index][:4]
                stored, options = palette[truth][..., ::-1], {}
        elif way == "16 bits":
            stored, options = truth.astype(np.uint16), {"ignore": 255}
        else:
            options = {"ignore": 255, "label_suffix": "_gt.png"}
            (tmp_path / "labels" / f"{index}.png").rename(tmp_path / "labels" / f"{index}_gt.png")
            assert cv2.imwrite(str(tmp_path / "labels" / f"{index}_gt.png"), stored)
            continue
        _write(tmp_path, index, stored)
    found = evaluate_bundle(bundle, _data(tmp_path, **options))
    assert (found.failures, found.notes) == ((), ())
    assert np.array_equal(found.matrix.counts[:, :4], _expected(truths, predicted))


def test_values_that_do_not_fit_are_one_failure_with_its_reason(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    odd = predicted[1].copy()
    odd[0, :2] = 77, 99
    _write(tmp_path, 1, odd)
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert found.images == 2
    ((_, reason),) = found.failures
    assert re.search(r"label map '.*1\.png': the label map holds 77, 99, expected 0\.\.3; name the void label", reason)
    assert np.array_equal(
        found.matrix.counts[:, :4], _expected([predicted[0], predicted[2]], [predicted[0], predicted[2]])
    )


def test_values_that_a_table_or_data_set_lacks_are_named(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    _write(tmp_path, 1, np.full(SIZE, 200, np.uint8))
    (tmp_path / "map.csv").write_text("0,0\n1,1\n2,2\n3,3\n", encoding="utf-8")
    ((_, reason),) = evaluate_bundle(bundle, _data(tmp_path, label_map=tmp_path / "map.csv")).failures
    assert re.search(r"holds 200, expected the values of '.*map\.csv'; name them there, as a class or void$", reason)
    voc = make_tiny_bundle(tmp_path, name="voc", num_classes=21)
    root = tmp_path / "VOC2012"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "images").rename(root / "JPEGImages")
    (tmp_path / "labels").rename(root / "SegmentationClass")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("0\n1\n", encoding="utf-8")
    ((_, reason),) = evaluate_bundle(voc, LabelledPictures.from_dataset("voc", tmp_path)).failures
    assert re.search(r"holds 200, expected the values of voc; check the file", reason)


def test_labels_one_too_high_are_noticed(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    for index, labels in enumerate(predicted):
        _write(tmp_path, index, np.minimum(labels, 2) + np.uint8(1))
    (note,) = evaluate_bundle(bundle, _data(tmp_path, ignore=0)).notes
    assert note.startswith("the labels agree better when read one lower")


def test_labels_one_too_low_are_noticed(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    (note,) = evaluate_bundle(bundle, _data(tmp_path, reduce_zero_label=True)).notes
    assert note.startswith("the labels agree better when read as they are stored")


@pytest.mark.parametrize("swapped", [False, True])
def test_swapped_masks_are_noticed(swapped: bool, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, num_classes=1)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), picture(SIZE)[..., ::-1])
    with Predictor(bundle) as predictor:
        labels = predictor(picture(SIZE)).labels
    assert set(np.unique(labels)) == {0, 1}
    _write(tmp_path, 0, ((labels == (0 if swapped else 1)) * 255).astype(np.uint8))
    notes = evaluate_bundle(bundle, _data(tmp_path, positive_label=255)).notes
    assert any("classes are swapped" in note for note in notes) == swapped


def test_a_positive_label_that_no_map_holds_is_noticed(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, num_classes=2)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), picture(SIZE)[..., ::-1])
    _write(tmp_path, 0, np.zeros(SIZE, np.uint8))
    (note,) = evaluate_bundle(bundle, _data(tmp_path, positive_label=255)).notes
    assert note == "no label map holds the positive label 255; class 1 is not scored"


def test_low_cityscapes_ids_are_noticed(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, num_classes=19)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), picture(SIZE)[..., ::-1])
    ids = np.array([7, 8, 11, 12, 13, 17, *[9] * 13], np.uint8)
    with Predictor(bundle) as predictor:
        _write(tmp_path, 0, ids[predictor(picture(SIZE)).labels])
    (note,) = evaluate_bundle(bundle, _data(tmp_path)).notes
    assert note.startswith("the labels agree better when read as Cityscapes label ids")


def test_ids_above_the_classes_end_the_evaluation(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, num_classes=19)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for index, label in enumerate((7, 26)):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), picture(SIZE)[..., ::-1])
        _write(tmp_path, index, np.full(SIZE, label, np.uint8))
    with pytest.raises(InputError, match=r"1\.png': the label map holds 26, .*Cityscapes label ids"):
        evaluate_bundle(bundle, _data(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive_label": 255, "label_map": "a.csv"}, "positive_label and label_map each say"),
        ({"reduce_zero_label": True, "label_map": "a.csv"}, "reduce_zero_label and label_map each say"),
        ({"positive_label": 255, "reduce_zero_label": True}, "positive_label and reduce_zero_label each say"),
        ({"positive_label": 255, "ignore": 255}, "255 cannot be void"),
        ({"dataset": "voc", "label_suffix": "_L.png"}, "data set voc says itself"),
        ({"dataset": "voc", "recursive": True}, "data set voc says itself"),
    ],
)
def test_options_that_cancel_one_another(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        _data(tmp_path, **options)


def test_every_figure_is_that_of_its_own_count(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    truths, boundaries, matrix = _noisy(predicted), BoundaryMatrix(4), ConfusionMatrix(4)
    for index, (truth, labels) in enumerate(zip(truths, predicted, strict=True)):
        truth[:4] = 255
        _write(tmp_path, index, truth)
        boundaries.update(truth, labels, 255)
        matrix.update(truth, labels, 255)
    found = evaluate_bundle(bundle, _data(tmp_path, ignore=255))
    scores = found.scores()
    assert scores["void ignored"]["boundary IoU"] == boundaries.miou
    assert scores["void ignored"]["frequency-weighted IoU"] == matrix.frequency_weighted_iou
    assert "boundary IoU" not in scores["predictions on void count as errors"]
    assert [row["boundary_iou"] for row in found.rows()] == boundaries.iou.tolist()
    assert found.intervals() == {}
    assert found.to_json()["intervals"] == {"share": 0.95, "resamples": 1000, "fewest": 10, "scores": None}


def test_enough_pictures_have_intervals_in_both_readings(bundle: Bundle, tmp_path: Path) -> None:
    counts = PictureCounts()
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with Predictor(bundle) as predictor:
        for index in range(FEWEST):
            image = picture(SIZE, index)
            cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image[..., ::-1])
            labels = predictor(image).labels
            (truth,) = _noisy([labels])
            truth[: index + 1] = 255
            _write(tmp_path, index, truth)
            matrix = ConfusionMatrix(4)
            matrix.update(truth, labels, 255)
            counts.add(matrix)
    found = evaluate_bundle(bundle, _data(tmp_path, ignore=255))
    assert found.intervals() == {
        "void ignored": counts.intervals(),
        "predictions on void count as errors": counts.intervals(count_void_as_error=True),
    }
    low, high = found.to_json()["intervals"]["scores"]["void ignored"]["mIoU"]
    assert low < found.matrix.miou < high


def test_absent_classes_are_counted(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    there = set(np.unique(np.stack(predicted)).tolist())
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert found.absent == found.to_json()["absent_classes"] == 4 - len(there)
    assert found.scores()["void ignored"]["mIoU"] == 1.0


def test_nothing_but_void_has_no_scores(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    for index in range(3):
        _write(tmp_path, index, np.full(SIZE, 255, np.uint8))
    found = evaluate_bundle(bundle, _data(tmp_path, ignore=255))
    assert found.absent == 4
    assert set(found.to_json()["scores"]["void ignored"].values()) == {None}


@pytest.mark.parametrize("resize", [ResizeRule(), ResizeRule("letterbox")])
@pytest.mark.parametrize("size", [(20, 30), (80, 120), (13, 20)])
def test_a_picture_is_scored_at_the_size_of_its_label_map(
    size: tuple[int, int], resize: ResizeRule, tmp_path: Path
) -> None:
    bundle = make_tiny_bundle(tmp_path, resize=resize)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    image = picture(SIZE)
    cv2.imwrite(str(tmp_path / "images" / "0.png"), image[..., ::-1])
    with Predictor(bundle, output=size) as predictor:
        expected = predictor(image).labels
    _write(tmp_path, 0, expected)
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert found.matrix.counts.sum() == size[0] * size[1]
    assert found.matrix.pixel_accuracy == 1.0
    assert found.notes == (f"{OWN_SIZE} (1 label map)",)


@pytest.mark.parametrize(
    ("labels", "picture_size", "fits"),
    [
        ((375, 500), (375, 500), True),
        ((187, 250), (375, 500), True),
        ((188, 250), (375, 500), True),
        ((49, 99), (101, 200), True),
        ((1024, 2048), (512, 1024), True),
        ((40, 60), (60, 40), False),
        ((3, 3), (40, 60), False),
        ((10, 60), (40, 60), False),
        ((1024, 2000), (1024, 2048), False),
        ((512, 512), (1024, 2048), False),
    ],
)
def test_label_maps_of_another_shape_are_no_label_maps_of_the_picture(
    labels: tuple[int, int], picture_size: tuple[int, int], fits: bool
) -> None:
    if fits:
        assert check_sizes(Path("a.png"), labels, picture_size) == ((OWN_SIZE,) if labels != picture_size else ())
        return
    with pytest.raises(InputError, match="their aspect ratios must agree"):
        check_sizes(Path("a.png"), labels, picture_size)


def test_a_size_that_the_network_does_not_take_is_that_pictures_failure(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, resize=ResizeRule("none"))
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for index, size in enumerate(((32, 48), (40, 60))):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), picture(size))
        _write(tmp_path, index, np.zeros(size, np.uint8))
    found = evaluate_bundle(bundle, _data(tmp_path))
    ((name, reason),) = found.failures
    assert (found.images, Path(name).name) == (1, "1.png")
    assert "the picture is 40x60" in reason


def test_a_picture_that_the_network_makes_no_numbers_of_is_a_failure(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, calls = Predictor.__call__, iter(range(3))

    def fails_once(self: Predictor, frame: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise UsageError("the logits hold NaN")
        return predict(self, frame, **options)

    monkeypatch.setattr(Predictor, "__call__", fails_once)
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert (found.images, found.failures) == (2, ((str(tmp_path / "images" / "1.png"), "the logits hold NaN"),))


@pytest.fixture
def nested(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> Path:
    """The pictures in subfolders: ``0`` in a, ``0`` again in b/c, ``2`` in none; the same stem with other labels."""
    for name in ("images", "labels"):
        root = tmp_path / name
        for folder in ("a", "b/c"):
            (root / folder).mkdir(parents=True)
        (root / "0.png").rename(root / "a" / "0.png")
        (root / "1.png").rename(root / "b" / "c" / "0.png")
    return tmp_path


def test_subfolders_are_paired_with_the_same_subfolders(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], nested: Path
) -> None:
    found = evaluate_bundle(bundle, _data(nested, recursive=True))
    assert (found.images, found.failures) == (3, ())
    assert found.matrix.pixel_accuracy == 1.0
    assert evaluate_bundle(bundle, _data(nested)).images == 1
    pairs = _data(nested, recursive=True).pairs()
    assert [picture.relative_to(nested / "images").as_posix() for picture, _ in pairs] == [
        "2.png",
        "a/0.png",
        "b/c/0.png",
    ]


def test_a_label_map_in_another_subfolder_is_missing(bundle: Bundle, nested: Path) -> None:
    (nested / "labels" / "b" / "c" / "0.png").rename(nested / "labels" / "b" / "0.png")
    ((name, reason),) = evaluate_bundle(bundle, _data(nested, recursive=True)).failures
    assert name.endswith("b/c/0.png")
    assert "no such file" in reason


def test_folders_of_folders_advise_the_option_that_takes_them(nested: Path) -> None:
    (nested / "images" / "2.png").unlink()
    with pytest.raises(InputError, match=r"holds folders and no images; take their pictures with --recursive, or use"):
        _data(nested).pairs()
    with pytest.raises(InputError, match="take their pictures with --calib-recursive, or use --calib-dataset"):
        _data(nested, flags="--calib-").pairs()


def test_label_maps_inside_the_folder_of_pictures_are_no_pictures(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    (tmp_path / "labels").rename(tmp_path / "images" / "labels")
    data = LabelledPictures(tmp_path / "images", tmp_path / "images" / "labels", recursive=True)
    found = evaluate_bundle(bundle, data)
    assert (found.images, found.failures, found.matrix.pixel_accuracy) == (3, (), 1.0)


@pytest.mark.parametrize("suffix", [".png", "_gt.png"])
def test_label_maps_may_lie_beside_their_pictures(suffix: str, bundle: Bundle, tmp_path: Path) -> None:
    end = ".bmp" if suffix == ".png" else ".png"
    with Predictor(bundle) as predictor:
        for index in range(2):
            file = tmp_path / "both" / f"{index}{end}"
            file.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(file), picture(SIZE, index)[..., ::-1])
            cv2.imwrite(str(tmp_path / "both" / f"{index}{suffix}"), predictor(file).labels)
    both = tmp_path / "both"
    found = evaluate_bundle(bundle, LabelledPictures(both, both, label_suffix=suffix))
    assert (found.images, found.failures, found.matrix.pixel_accuracy) == (2, (), 1.0)


def test_the_suffix_of_label_maps_that_are_there_is_advised(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    for file in (tmp_path / "labels").iterdir():
        file.rename(file.with_name(f"{file.stem}_labelTrainIds.png"))
    (tmp_path / "labels" / "01.png").write_bytes(b"of another picture")
    told = r"STEM\.png for each \(--label-suffix\); for '0_labelTrainIds\.png' use --label-suffix _labelTrainIds\.png"
    with pytest.raises(InputError, match=told):
        evaluate_bundle(bundle, _data(tmp_path))
    assert evaluate_bundle(bundle, _data(tmp_path, label_suffix="_labelTrainIds.png")).images == 3


def test_a_suffix_in_capitals_is_the_same(bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    (tmp_path / "labels" / "1.png").rename(tmp_path / "labels" / "1.PNG")
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert (found.images, found.failures, found.matrix.pixel_accuracy) == (3, (), 1.0)


def test_two_pictures_of_one_label_map_are_both_failures(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "images" / "1.bmp"), picture(SIZE, 7)[..., ::-1])
    found = evaluate_bundle(bundle, _data(tmp_path))
    assert found.images == 2
    assert sorted(Path(name).name for name, _ in found.failures) == ["1.bmp", "1.png"]
    assert all("another of the same stem" in reason for _, reason in found.failures)


def test_low_coco_stuff_ids_are_noticed(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, num_classes=171)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), picture(SIZE)[..., ::-1])
    gaps = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
    ids = np.array([value for value in range(182) if value not in gaps], np.uint8)
    with Predictor(bundle) as predictor:
        stored = ids[predictor(picture(SIZE)).labels]
    _write(tmp_path, 0, np.where(stored > 170, 0, stored).astype(np.uint8))
    (note,) = evaluate_bundle(bundle, _data(tmp_path)).notes
    assert note.startswith("the labels agree better when read as COCO-Stuff label ids")


def test_files_that_are_no_pictures_are_told(
    bundle: Bundle, predicted: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    for index, labels in enumerate(predicted):
        _write(tmp_path, index, labels)
    data = _data(tmp_path)
    assert data.passed_over() == evaluate_bundle(bundle, data).notes == ()
    (Path(data.images) / "notes.txt").write_text("of no picture", encoding="utf-8")
    (Path(data.images) / "unnamed").write_bytes(b"neither")
    (told,) = evaluate_bundle(bundle, data).notes
    assert told == "passed over: 2 files that are no pictures (notes.txt, unnamed)"
