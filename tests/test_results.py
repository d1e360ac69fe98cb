"""A result's pictures, and what cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import StorageError, UsageError
from edgeseg.results import Result

LABELS = np.array([[0, 1, 1], [2, 1, 0]], np.uint8)
IMAGE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * np.uint8(10)
PALETTE = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


@pytest.fixture
def result() -> Result:
    return Result(LABELS, ("ground", "person", "sky"), PALETTE, IMAGE)


def _read(path: Path) -> NDArray[np.uint8]:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found, np.uint8)


def test_shares_are_largest_first_and_sum_to_one(result: Result) -> None:
    assert result.size == (2, 3)
    assert list(result.shares().items()) == [("person", 0.5), ("ground", 2 / 6), ("sky", 1 / 6)]
    assert list(Result(np.zeros((2, 2), np.uint8), ("a", "b"), PALETTE).shares()) == ["a"]


def test_color_is_the_palette_in_rgb(result: Result) -> None:
    colors = result.color()
    assert colors.dtype == np.uint8
    assert [tuple(pixel) for pixel in colors.reshape(-1, 3).tolist()] == [PALETTE[i] for i in LABELS.ravel()]


def test_overlay_mixes(result: Result) -> None:
    assert np.array_equal(result.overlay(opacity=0.0), IMAGE)
    assert np.array_equal(result.overlay(opacity=1.0), result.color())
    half = (IMAGE.astype(np.float64) + result.color()) / 2
    assert np.abs(result.overlay() - half).max() <= 0.5


def test_cutout(result: Result) -> None:
    cut = result.cutout()
    assert np.array_equal(cut[..., :3], IMAGE)
    assert np.array_equal(cut[..., 3] == 255, LABELS == 1)
    on_green = result.cutout(2, background=(0, 255, 0))
    assert on_green.dtype == np.uint8
    assert np.array_equal(on_green[LABELS == 2], IMAGE[LABELS == 2])
    assert np.unique(on_green[LABELS != 2], axis=0).tolist() == [[0, 255, 0]]


def test_without_a_picture(result: Result) -> None:
    bare = Result(LABELS, result.names, PALETTE)
    for call in (bare.overlay, bare.cutout):
        with pytest.raises(UsageError, match="keep_image=True"):
            call()
    assert bare.color().shape == (2, 3, 3)


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_opacity_is_a_share(result: Result, opacity: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        result.overlay(opacity=opacity)


@pytest.mark.parametrize("kind", ["labels", "color", "overlay", "cutout"])
def test_save(result: Result, kind: str, tmp_path: Path) -> None:
    path = result.save(tmp_path / "new" / f"{kind}.png", kind=kind)
    wanted = {"labels": LABELS, "color": result.color(), "overlay": result.overlay(), "cutout": result.cutout()}[kind]
    got = _read(path)
    if got.ndim == 3:
        got = got[..., [2, 1, 0, 3][: got.shape[2]]]
    assert np.array_equal(got, wanted)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_save_as_jpeg(result: Result, tmp_path: Path) -> None:
    assert _read(result.save(str(tmp_path / "o.JPG"), kind="overlay")).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("x.png", "mask", "kind 'mask' is none of labels, color, overlay, cutout"),
        ("x.jpg", "labels", r"without loss; name the file x\.png"),
        ("x.jpg", "cutout", r"without loss; name the file x\.png"),
        ("x", "labels", r"name the file x\.png"),
        ("x", "overlay", r"cannot write pictures as ''; use \.png or \.jpg"),
        ("x.docx", "overlay", r"cannot write pictures as '\.docx'"),
    ],
)
def test_what_cannot_be_saved(result: Result, name: str, kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        result.save(tmp_path / name, kind=kind)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"cannot write '.*x\.png': the disk is full"):
        result.save(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
