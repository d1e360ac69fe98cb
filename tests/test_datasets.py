"""Data sets as they are downloaded, read and scored against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.bundle import Bundle
from edgeseg.datasets import DATASETS, dataset, explain_values, recognise_layout
from edgeseg.errors import InputError, UnknownNameError, UsageError
from edgeseg.evaluation import LabelledPictures, evaluate_bundle
from edgeseg.label_files import VOID, read_label_file
from edgeseg.labels import label_set
from edgeseg.predictor import Predictor
from tests.runtimes.bundles import make_tiny_bundle, picture

SIZE = (40, 60)
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# COCO has no category 12, 26, 29, 30, 45, 66, 68, 69, 71, 83 and 91; a label map holds the category less one.
STUFF = tuple(k - 1 for k in range(1, 183) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91))


def _put(file: Path, image: NDArray[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image[..., ::-1] if image.ndim == 3 else image)


class _Stored:
    """How a data set stores a picture and its classes, void being -1."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root

    def put(self, index: int, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        getattr(self, f"_{self.name}")(f"p{index}", image, classes)

    def _cityscapes(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "leftImg8bit" / "val" / "ulm" / f"{stem}_leftImg8bit.png", image)
        ids = np.array([*IDS, 3], np.uint8)[classes]
        _put(self.root / "gtFine" / "val" / "ulm" / f"{stem}_gtFine_labelIds.png", ids)

    def _cityscapes_train(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "leftImg8bit" / "val" / "ulm" / f"{stem}_leftImg8bit.png", image)
        _put(self.root / "gtFine" / "val" / "ulm" / f"{stem}_gtFine_labelTrainIds.png", classes.astype(np.uint8))

    def _ade20k(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        folder = self.root / "ADEChallengeData2016"
        _put(folder / "images" / "validation" / f"{stem}.png", image)
        _put(folder / "annotations" / "validation" / f"{stem}.png", (classes + 1).astype(np.uint8))

    def _voc(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        folder = self.root / "VOCdevkit" / "VOC2012"
        for name in (stem, "unlisted"):
            _put(folder / "JPEGImages" / f"{name}.png", image)
        colors = np.array([*label_set("voc", 21).palette, (224, 224, 192)], np.uint8)[classes]
        _put(folder / "SegmentationClass" / f"{stem}.png", colors)
        listing = folder / "ImageSets" / "Segmentation" / "val.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(f"{listing.read_text() if listing.exists() else ''}{stem}\n", encoding="utf-8")

    def _camvid(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "test" / f"{stem}.png", image)
        _put(self.root / "testannot" / f"{stem}.png", np.where(classes < 0, 11, classes).astype(np.uint8))

    def _camvid_colors(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "701_StillsRaw_full" / f"{stem}.png", image)
        colors = np.array([*label_set("camvid", 11).palette, (0, 0, 0)], np.uint8)[classes]
        _put(self.root / "LabeledApproved_full" / f"{stem}_L.png", colors)

    def _coarse(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "leftImg8bit" / "val" / "ulm" / f"{stem}_leftImg8bit.png", image)
        ids = np.array([*IDS, 3], np.uint8)[classes]
        _put(self.root / "gtCoarse" / "val" / "ulm" / f"{stem}_gtCoarse_labelIds.png", ids)

    def _voc_augmented(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "JPEGImages" / f"{stem}.jpg", image)
        _put(self.root / "SegmentationClassAug" / f"{stem}.png", classes.astype(np.uint8))
        listing = self.root / "ImageSets" / "Segmentation" / "val.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(f"{listing.read_text() if listing.exists() else ''}{stem}\n", encoding="utf-8")

    def _camvid_train(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "CamVid" / "train" / f"{stem}.png", image)
        _put(self.root / "CamVid" / "trainannot" / f"{stem}.png", np.where(classes < 0, 11, classes).astype(np.uint8))

    def _stuff(
        self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64], labels: str = "annotations"
    ) -> None:
        _put(self.root / "images" / "val2017" / f"{stem}.png", image)
        _put(self.root / labels / "val2017" / f"{stem}.png", np.array([*STUFF, 255], np.uint8)[classes])

    def _stuff_maps(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        self._stuff(stem, image, classes, "stuffthingmaps")

    def _stuff_unpacked(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "coco" / "val2017" / f"{stem}.png", image)
        folder = self.root / "coco" / "stuffthingmaps_trainval2017" / "val2017"
        _put(folder / f"{stem}.png", np.array([*STUFF, 255], np.uint8)[classes])

    def _binary_singular(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "image" / f"{stem}.png", image)
        _put(self.root / "mask" / f"{stem}.png", (classes % 2).astype(np.uint8))

    def _stuff_train(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        self._stuff(stem, image, classes)
        _put(self.root / "annotations" / "val2017" / f"{stem}_labelTrainIds.png", classes.astype(np.uint8))

    def _binary(self, stem: str, image: NDArray[np.uint8], classes: NDArray[np.int64]) -> None:
        _put(self.root / "images" / f"{stem}.png", image)
        _put(self.root / "masks" / f"{stem}.png", (classes % 2 * 255).astype(np.uint8))


def _bundle(folder: Path, classes: int) -> Bundle:
    return make_tiny_bundle(folder, num_classes=classes)


@pytest.mark.parametrize(
    ("stored", "name", "outputs"),
    [
        ("cityscapes", "cityscapes", 19),
        ("cityscapes", "cityscapes", 20),
        ("cityscapes_train", "cityscapes", 19),
        ("ade20k", "ade20k", 150),
        ("voc", "voc", 21),
        ("camvid", "camvid", 11),
        ("camvid", "camvid", 12),
        ("camvid_colors", "camvid", 11),
        ("binary", "binary", 2),
        ("coarse", "cityscapes", 19),
        ("camvid_train", "camvid", 11),
        ("stuff", "coco-stuff", 171),
        ("stuff_maps", "coco-stuff", 171),
        ("stuff_train", "coco-stuff", 171),
        ("stuff_unpacked", "coco-stuff", 171),
        ("binary_singular", "binary", 2),
    ],
)
def test_a_data_set_scores_as_numpy_does(stored: str, name: str, outputs: int, tmp_path: Path) -> None:
    bundle, count = _bundle(tmp_path, outputs), DATASETS[name].classes
    rng, layout = np.random.default_rng(0), _Stored(stored, tmp_path / "root")
    counts = np.zeros((count, outputs), np.int64)
    with Predictor(bundle) as predictor:
        for index in range(3):
            image = picture(SIZE, index)
            found = predictor(image).labels.astype(np.int64)
            classes = np.where(rng.random(SIZE) < 0.3, rng.integers(0, count, SIZE), found % count)
            classes[:3] = 0 if name == "binary" else -1
            layout.put(index, image, classes)
            kept = classes >= 0
            np.add.at(counts, (classes[kept], found[kept]), 1)
    scores = evaluate_bundle(bundle, LabelledPictures.from_dataset(name, tmp_path / "root"))
    assert (scores.images, scores.failures, len(scores.names)) == (3, (), count)
    assert np.array_equal(scores.matrix.counts[:, :count], counts[:, :count])
    assert np.array_equal(scores.matrix.counts[:, count], counts[:, count:].sum(axis=1))


def test_coco_stuff_has_80_things_and_91_stuff_classes(tmp_path: Path) -> None:
    assert (len(STUFF), sum(value < 91 for value in STUFF)) == (171, 80)
    _put(tmp_path / "a.png", np.array([[0, 10, 12, 181, 255]], np.uint8))
    (labels,) = read_label_file(tmp_path / "a.png", DATASETS["coco-stuff"].layouts[1].rules).labels.tolist()
    assert labels == [0, 10, 11, 170, VOID]
    _put(tmp_path / "b.png", np.array([[11, 182]], np.uint8))
    assert read_label_file(tmp_path / "b.png", DATASETS["coco-stuff"].layouts[1].rules).outside(171).tolist() == [
        11,
        182,
    ]


def test_voc_is_read_from_the_augmented_label_maps_where_there_are_no_others(tmp_path: Path) -> None:
    stored, classes = _Stored("voc_augmented", tmp_path), np.full(SIZE, 3)
    stored.put(0, picture(SIZE), np.where(np.arange(60) < 9, -1, classes))
    layout, ((_, labels),) = dataset("voc").open(tmp_path)
    read = read_label_file(labels, layout.rules)
    assert labels.parent.name == "SegmentationClassAug"
    assert np.unique(read.labels).tolist() == [3, VOID]


@pytest.mark.parametrize(
    ("stored", "name", "note"),
    [
        ("coarse", "cityscapes", "gtCoarse is scored, whose outlines are rough"),
        ("camvid_train", "camvid", "the train part is scored"),
        ("camvid", "camvid", ""),
    ],
)
def test_what_is_scored_in_place_of_the_usual_is_told(stored: str, name: str, note: str, tmp_path: Path) -> None:
    classes = DATASETS[name].classes
    _Stored(stored, tmp_path / "root").put(0, picture(SIZE), np.zeros(SIZE, np.int64))
    found = evaluate_bundle(_bundle(tmp_path, classes), LabelledPictures.from_dataset(name, tmp_path / "root"))
    told = [each for each in found.notes if each.startswith("there is no")]
    assert len(told) == bool(note)
    assert all(each.endswith(note) for each in told)


def test_fine_label_maps_go_before_coarse_ones_and_coloured_ones_are_passed_over(tmp_path: Path) -> None:
    for stored in ("coarse", "cityscapes"):
        _Stored(stored, tmp_path).put(0, picture(SIZE), np.zeros(SIZE, np.int64))
    _put(tmp_path / "gtFine" / "val" / "ulm" / "p0_gtFine_color.png", np.zeros((*SIZE, 3), np.uint8))
    layout, ((_, labels),) = dataset("cityscapes").open(tmp_path)
    assert (labels.name, layout.note) == ("p0_gtFine_labelIds.png", "")


@pytest.mark.parametrize(
    ("name", "file", "why"),
    [
        ("cityscapes", "leftImg8bit/test/bonn/a_leftImg8bit.png", "test part is published without labels"),
        ("cityscapes", "leftImg8bit/train/ulm/a_leftImg8bit.png", "only its train part is there"),
        ("voc", "VOC2012/ImageSets/Segmentation/test.txt", "test part is published without labels"),
        ("ade20k", "ADE20K_2021_17_01/images/ADE/validation/a.jpg", "the full ADE20K"),
        ("coco-stuff", "annotations/COCO_train2014_000000000077.mat", r"COCO-Stuff 10k \(\.mat files\) is not read"),
        ("coco-stuff", "readme.txt", "expected images/val2017"),
    ],
)
def test_forms_that_cannot_be_scored_say_why(name: str, file: str, why: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(InputError, match=rf"no {name} data set to score at .*{why}"):
        dataset(name).open(tmp_path)


def test_camvid_merges_its_32_colours(tmp_path: Path) -> None:
    shades = np.array(
        [[(64, 192, 0), (128, 0, 192), (64, 128, 192), (192, 0, 192), (0, 0, 0), (192, 128, 64)]], np.uint8
    )
    _put(tmp_path / "a.png", shades)
    rules = DATASETS["camvid"].layouts[1].rules
    assert read_label_file(tmp_path / "a.png", rules).labels.tolist() == [
        [1, 3, 8, 10, VOID, 9]
    ]  # wall, lane, van, ...
    _put(tmp_path / "b.png", np.full((2, 2, 3), (1, 2, 3), np.uint8))
    with pytest.raises(InputError, match="#010203"):
        read_label_file(tmp_path / "b.png", rules)


def test_every_cityscapes_id_is_a_class_or_void(tmp_path: Path) -> None:
    _put(tmp_path / "a.png", np.arange(34, dtype=np.uint8)[None])
    (labels,) = read_label_file(tmp_path / "a.png", DATASETS["cityscapes"].layouts[0].rules).labels.tolist()
    assert labels == [IDS.index(label) if label in IDS else VOID for label in range(34)]


def test_a_listed_picture_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    bundle, layout = _bundle(tmp_path, 21), _Stored("voc", tmp_path / "root")
    for index in range(2):
        layout.put(index, picture(SIZE, index), np.zeros(SIZE, np.int64))
    (tmp_path / "root" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "p1.png").unlink()
    found = evaluate_bundle(bundle, LabelledPictures.from_dataset("voc", tmp_path / "root"))
    assert found.images == 1
    ((name, reason),) = found.failures
    assert Path(name).stem == "p1"
    assert "no such file" in reason


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cityscapes'"):
        LabelledPictures.from_dataset("cityscape", tmp_path)
    with pytest.raises(InputError, match=r"expected leftImg8bit/val/CITY/STEM_leftImg8bit\.png with gtFine/val"):
        dataset("cityscapes").open(tmp_path)
    _Stored("camvid", tmp_path / "root").put(0, picture(SIZE), np.zeros(SIZE, np.int64))
    with pytest.raises(UsageError, match="data set camvid has 11 classes, the network 4"):
        evaluate_bundle(_bundle(tmp_path, 4), LabelledPictures.from_dataset("camvid", tmp_path / "root"))
    with pytest.raises(UsageError, match="data set camvid says itself"):
        LabelledPictures(tmp_path, tmp_path, ignore=11, dataset="camvid")


@pytest.mark.parametrize(
    ("images", "labels", "advice"),
    [
        ("d/leftImg8bit/val/ulm", "d/gtFine/val/ulm", "--dataset cityscapes 'd'"),
        ("d/images/validation", "d/annotations/validation", "--dataset ade20k 'd'"),
        ("VOC2012/JPEGImages", "VOC2012/SegmentationClass", "--dataset voc 'VOC2012'"),
        ("d/images/val2017", "d/stuffthingmaps/val2017", "--dataset coco-stuff 'd'"),
        ("d/val2017", "d/stuffthingmaps/val2017", "--dataset coco-stuff 'd'"),
        ("d/701_StillsRaw_full", "d/LabeledApproved_full", "--dataset camvid 'd'"),
        ("d/test", "d/testannot", "--dataset camvid 'd'"),
        ("d/leftImg8bit/val", "d/gtCoarse/val", "--dataset cityscapes 'd'"),
        ("d/images", "d/labels", ""),
        ("d/leftImg8bit/val", "d/labels", ""),
    ],
)
def test_folders_are_recognised(images: str, labels: str, advice: str) -> None:
    found = recognise_layout(Path(images), Path(labels))
    assert found.endswith(advice)
    assert bool(found) == bool(advice)


@pytest.mark.parametrize(
    ("outside", "classes", "advice"),
    [
        ([23, 26], 19, "Cityscapes label ids"),
        ([24, 33], 20, "Cityscapes label ids"),
        ([171, 181], 171, "COCO-Stuff label ids"),
        ([150], 150, "--dataset ade20k ROOT"),
        ([4], 4, "use --reduce-zero-label"),
        ([19], 19, "use --reduce-zero-label"),
        ([11], 11, "use --ignore 11"),
        ([255], 19, "use --ignore 255"),
        ([255], 2, "--positive-label 255"),
        ([128, 65535], 2, "--positive-label 65535"),
        ([77, 99], 19, "--label-map"),
    ],
)
def test_values_are_explained(outside: list[int], classes: int, advice: str) -> None:
    assert advice in explain_values(outside, classes)
    calibration = explain_values(outside, classes, flags="--calib-")
    assert advice.replace("--", "--calib-") in calibration
    assert calibration.count("--") == calibration.count("--calib-")
