"""Names and colours of the classes, and how outputs become labels."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeseg.errors import UsageError
from edgeseg.labels import label_set
from edgeseg.models.configs.classes import _tables, read_labels, read_outputs


def _head(**options: Any) -> dict[str, Any]:
    return {"type": "FCNHead", **options}


def _dataset(name: str, **more: Any) -> dict[str, Any]:
    return {"test_dataloader": {"dataset": {"type": name, **more}}}


@pytest.mark.parametrize(
    ("heads", "channels", "classes", "probability"),
    [
        ([_head(num_classes=19)], 19, 19, None),
        ([_head(num_classes=2)], 2, 2, None),
        ([_head(num_classes=2, out_channels=2)], 2, 2, None),
        ([_head(num_classes=2, out_channels=1)], 1, 2, 0.3),
        ([_head(num_classes=2, out_channels=1, threshold=0.5)], 1, 2, 0.5),
        ([_head(num_classes=1)], 1, 2, 0.3),
        ([_head(num_classes=1, threshold=0.9)], 1, 2, 0.9),
        ([_head(num_classes=5), _head(num_classes=5)], 5, 5, None),
        ([{"kernel_generate_head": _head(num_classes=7), "kernel_update_head": [_head(num_classes=7)]}], 7, 7, None),
    ],
)
def test_outputs(heads: list[dict[str, Any]], channels: int, classes: int, probability: float | None) -> None:
    found = read_outputs(heads)
    assert (found.channels, found.classes) == (channels, classes)
    logit = 0.0 if probability is None else math.log(probability / (1 - probability))
    assert found.threshold == pytest.approx(logit, abs=1e-12)


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ([_head()], "no num_classes"),
        ([_head(num_classes=0)], "num_classes is 0"),
        ([_head(num_classes="19")], "num_classes is '19'"),
        ([_head(num_classes=True)], "num_classes is True"),
        ([_head(num_classes=70_000)], "1 to 65535"),
        ([_head(num_classes=5), _head(num_classes=6)], "have 5 and 6 classes"),
        ([_head(num_classes=3, out_channels=1)], "out_channels is 1 for 3"),
        ([_head(num_classes=3, out_channels=4)], "out_channels is 4 for 3"),
        ([_head(num_classes=1, threshold=0.0)], "threshold is 0.0"),
        ([_head(num_classes=1, threshold=1)], "threshold is 1"),
        ([_head(num_classes=1, threshold="0.5")], "threshold is '0.5'"),
    ],
)
def test_outputs_that_cannot_be(heads: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_outputs(heads)


@pytest.mark.parametrize(
    ("name", "classes", "last"),
    [
        ("CityscapesDataset", 19, ("bicycle", (119, 11, 32))),
        ("mmseg.CityscapesDataset", 19, ("bicycle", (119, 11, 32))),
        ("BDD100KDataset", 19, ("bicycle", (119, 11, 32))),
        ("PascalVOCDataset", 21, ("tv monitor", (0, 64, 128))),
        ("ADE20KDataset", 150, ("flag", (92, 0, 255))),
        ("COCOStuffDataset", 171, ("wood", (64, 64, 0))),
        ("PascalContextDataset", 60, ("wood", (31, 0, 255))),
        ("PascalContextDataset59", 59, ("wood", (31, 0, 255))),
        ("LoveDADataset", 7, ("agricultural", (255, 195, 128))),
        ("ISPRSDataset", 6, ("clutter", (255, 0, 0))),
        ("HRFDataset", 2, ("vessel", (6, 230, 230))),
    ],
)
def test_classes_of_data_sets(name: str, classes: int, last: tuple[str, tuple[int, int, int]]) -> None:
    found, notes = read_labels(_dataset(name), classes)
    assert (len(found.names), found.names[-1], found.palette[-1]) == (classes, *last)
    assert not any("generic" in note for note in notes)


def test_tables_have_a_colour_for_each_class() -> None:
    for table in _tables().values():
        assert len(table["classes"]) == len(table["palette"])
        assert all(0 <= part <= 255 for color in table["palette"] for part in color)


def test_own_classes_go_before_those_of_the_data_set() -> None:
    own = {"classes": ("wall", "crack "), "palette": [[1, 2, 3], [4, 5, 6]]}
    old = {"data": {"test": {"type": "ADE20KDataset", **own}}}
    for config in (_dataset("ADE20KDataset", metainfo=own), old, {"metainfo": own, "dataset_type": "Mine"}):
        found, _ = read_labels(config, 2)
        assert (found.names, found.palette) == (("wall", "crack"), ((1, 2, 3), (4, 5, 6)))


def test_own_classes_without_colours() -> None:
    found, notes = read_labels(_dataset("Mine", metainfo={"classes": ["a", "b", "c"]}), 3)
    assert (found.names, found.palette, notes) == (("a", "b", "c"), label_set("generic", 3).palette, ())
    cityscapes = label_set("cityscapes", 19)
    found, _ = read_labels(_dataset("CityscapesDataset", metainfo={"classes": list(cityscapes.names)}), 19)
    assert found.palette == cityscapes.palette


@pytest.mark.parametrize(
    ("config", "classes", "words"),
    [
        (_dataset("Mine"), 5, "5 classes of Mine are not known here"),
        ({}, 5, "the config names no classes"),
        (_dataset("CityscapesDataset"), 5, "classes of CityscapesDataset"),
        (_dataset("ADE20KDataset"), 151, "classes of ADE20KDataset"),
        (_dataset("Mine", metainfo={"classes": ["a"]}), 5, "the config names 1 classes: the network's 5 labels"),
    ],
)
def test_generic_names_are_said(config: dict[str, Any], classes: int, words: str) -> None:
    found, notes = read_labels(config, classes)
    assert found == label_set("generic", classes)
    assert words in notes[-1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"classes": "names.txt"}, "classes are 'names.txt'"),
        ({"classes": [1, 2]}, "must be a list of names"),
        ({"classes": ["x" * 201, "b"]}, "must be a list of names"),
        ({"classes": ["a", "b"], "palette": [[1, 2, 3]]}, "1 colours for 2 classes"),
        ({"classes": ["a", "b"], "palette": [[1, 2, 3], [1, 2]]}, "three numbers 0..255"),
        ({"classes": ["a", "b"], "palette": [[1, 2, 3], [1, 2, 256]]}, "three numbers 0..255"),
        ({"classes": ["a", "b"], "palette": "reds"}, "three numbers 0..255"),
    ],
)
def test_classes_of_another_form(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_labels(_dataset("Mine", metainfo=given), 2)


def test_shifted_labels_and_camvids_order_are_said() -> None:
    loads = [{"type": "LoadAnnotations", "reduce_zero_label": True}]
    for config in (
        _dataset("ADE20KDataset"),
        _dataset("Mine", reduce_zero_label=True),
        _dataset("Mine", pipeline=loads),
    ):
        assert any("--reduce-zero-label" in note for note in read_labels(config, 150)[1])
    found, notes = read_labels(_dataset("CamVidDataset"), 11)
    assert found.name == "camvid"
    assert any("order of SegNet's split" in note for note in notes)
    assert read_labels(_dataset("CityscapesDataset"), 19)[1] == ()
