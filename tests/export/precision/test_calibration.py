"""Calibration folders: the split, label maps, and everything that is not a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.export.config import ExportConfig
from edgeseg.export.job import calibration_rules
from edgeseg.export.precision.calibration import evenly_spaced, load_calibration
from edgeseg.label_files import VOID, LabelRules
from edgeseg.specs import ResizeRule
from tests.export.precision.pictures import SIZE, write_pictures

RULE = ResizeRule()


def test_every_fourth_picture_is_held_out(tmp_path: Path) -> None:
    found = load_calibration(write_pictures(tmp_path / "c", 9), SIZE, RULE)
    assert [picture.path.name for picture in found.held_out] == ["3.png", "7.png"]
    assert [picture.path.stem for picture in found.pictures] == ["0", "1", "2", "4", "5", "6", "8"]
    assert {picture.image.shape for picture in (*found.held_out, *found.pictures)} == {(*SIZE, 3)}
    assert not found.shared


@pytest.mark.parametrize("count", [2, 3])
def test_of_few_pictures_the_last_is_held_out(count: int, tmp_path: Path) -> None:
    found = load_calibration(write_pictures(tmp_path / "c", count), SIZE, RULE)
    assert (len(found.pictures), len(found.held_out)) == (count - 1, 1)


def test_one_picture_is_both(tmp_path: Path) -> None:
    found = load_calibration(write_pictures(tmp_path / "c", 1), SIZE, RULE)
    assert found.shared
    assert found.pictures == found.held_out


def test_void_of_a_mask_is_no_background(tmp_path: Path) -> None:
    folder, mask = write_pictures(tmp_path / "c", 4), np.zeros((40, 60), np.uint8)
    mask[:, 20:], mask[:, 30:], mask[:, 40:] = 128, 200, 255
    cv2.imwrite(str(tmp_path / "3.png"), mask)
    rules = LabelRules(128, 255)
    (picture,) = load_calibration(folder, SIZE, RULE, labels=tmp_path, label_rules=rules).held_out
    assert picture.truth is not None
    assert np.array_equal(picture.truth, np.select([mask == 128, mask >= 128], [VOID, 1], 0))
    (note,) = picture.notes
    assert note.startswith("label value 200 is cut at half")


def test_the_config_says_what_label_values_mean() -> None:
    config = ExportConfig(calib_ignore=9, calib_reduce_zero_label=True)
    assert calibration_rules(config) == LabelRules(9, reduce_zero_label=True)
    assert calibration_rules(ExportConfig(calib_positive_label=255)) == LabelRules(positive_label=255)


def test_labels_come_with_the_held_out_pictures(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "c", 4)
    cv2.imwrite(str(tmp_path / "3.png"), np.full((40, 60), 255, np.uint8))
    found = load_calibration(folder, SIZE, RULE, labels=tmp_path, label_rules=LabelRules(positive_label=255))
    truth = found.held_out[0].truth
    assert truth is not None
    assert truth.shape == (40, 60)
    assert truth.min() == truth.max() == 1


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of calibration pictures"):
        load_calibration(tmp_path / "nothing", SIZE, RULE)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no images"):
        load_calibration(empty, SIZE, RULE)
    folder = write_pictures(tmp_path / "c", 4)
    with pytest.raises(InputError, match="no label map at"):
        load_calibration(folder, SIZE, RULE, labels=empty)
    cv2.imwrite(str(empty / "3.png"), np.zeros((10, 60), np.uint8))
    with pytest.raises(InputError, match="is 10x60, its picture 40x60"):
        load_calibration(folder, SIZE, RULE, labels=empty)
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1\.png"):
        load_calibration(folder, SIZE, RULE)


def test_even_spacing_keeps_order_and_ends() -> None:
    files = [Path(str(index)) for index in range(10)]
    assert evenly_spaced(files, 20) == files
    assert [path.name for path in evenly_spaced(files, 4)] == ["0", "2", "5", "7"]


def test_pictures_of_four_channels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 4), dtype=np.uint8)
    for index, image in enumerate(images):
        np.save(tmp_path / f"{index}.npy", image)
    found = load_calibration(tmp_path, SIZE, RULE, channels=4)
    assert [picture.path.name for picture in found.held_out] == ["3.npy"]
    np.testing.assert_array_equal(found.held_out[0].image, images[3])
    np.save(tmp_path / "5.npy", images[0, ..., :3])
    with pytest.raises(InputError, match=r"5.npy' has shape .* takes 4 channels"):
        load_calibration(tmp_path, SIZE, RULE, channels=4)
