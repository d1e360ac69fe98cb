"""Label sets: names, colours and what happens with an unusual number of classes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.labels import LABEL_SETS, label_set


@pytest.mark.parametrize(
    ("name", "outputs", "count", "first", "last"),
    [
        ("cityscapes", 19, 19, "road", "bicycle"),
        ("cityscapes", 20, 20, "road", "background"),
        ("camvid", 11, 11, "sky", "bicyclist"),
        ("camvid", 12, 12, "sky", "void"),
        ("person", 1, 2, "background", "person"),
        ("person", 2, 2, "background", "person"),
        ("voc", 21, 21, "background", "tv monitor"),
        ("generic", 4, 4, "class 0", "class 3"),
        ("cityscapes", 7, 7, "class 0", "class 6"),
        ("person", 3, 3, "class 0", "class 2"),
        ("camvid", 1, 2, "class 0", "class 1"),
    ],
)
def test_sets(name: str, outputs: int, count: int, first: str, last: str) -> None:
    found = label_set(name, outputs)
    assert len(found.names) == len(found.palette) == count
    assert (found.names[0], found.names[-1]) == (first, last)
    assert found.name == ("generic" if first == "class 0" else name)


def test_published_colours() -> None:
    cityscapes = label_set("cityscapes", 20)
    assert cityscapes.palette[cityscapes.names.index("car")] == (0, 0, 142)
    assert cityscapes.palette[19] == (0, 0, 0)
    assert cityscapes.ignore_label == 255
    camvid = label_set("camvid", 12)
    assert camvid.palette[camvid.names.index("pavement")] == (0, 0, 192)
    assert camvid.ignore_label == 11
    voc = label_set("voc", 21)
    assert voc.palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert voc.palette[voc.names.index("person")] == (192, 128, 128)
    assert voc.palette[20] == (0, 64, 128)


def test_generic_colours_differ_and_never_change() -> None:
    palette = label_set("generic", 255).palette
    assert len(set(palette)) == 255
    assert palette[:12] == label_set("generic", 12).palette
    colors = np.array(palette[:20], int)
    distance = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 999 * np.eye(20, dtype=int)
    assert distance.min() >= 60


def test_names_and_colours_are_plain_values() -> None:
    for name in LABEL_SETS:
        for count in (1, 2, 11, 12, 19, 20, 21, 150):
            found = label_set(name, count)
            assert len(set(found.names)) == len(found.names)
            assert all(type(x) is int and 0 <= x <= 255 for color in found.palette for x in color)


def test_unknown_names_and_counts_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cityscapes'"):
        label_set("cityscape", 19)
    for count in (0, 65536):
        with pytest.raises(UsageError, match="1 to 65535 classes"):
            label_set("voc", count)
