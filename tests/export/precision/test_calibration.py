"""Calibration pictures: the split, label maps as `edgeseg eval` reads them, and everything that is not right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.export.precision.calibration import Calibration, evenly_spaced, list_calibration, load_calibration
from edgeseg.label_files import VOID
from edgeseg.labelled import OWN_SIZE, LabelledPictures, MisreadError
from edgeseg.labels import label_set
from edgeseg.specs import ResizeRule
from tests.export.precision.pictures import SIZE, write_pictures

RULE = ResizeRule()


def _load(data: Path | LabelledPictures, classes: int = 4, *, recursive: bool = False) -> Calibration:
    """Calibration pictures of a network of so many classes."""
    labels = label_set("voc" if classes == 21 else "generic", classes)
    reader = data.reader(labels.names, labels.palette) if isinstance(data, LabelledPictures) else None
    return load_calibration(list_calibration(data, recursive=recursive), SIZE, RULE, reader)


def test_every_fourth_picture_is_held_out(tmp_path: Path) -> None:
    found = _load(write_pictures(tmp_path / "c", 9))
    assert [picture.path.name for picture in found.held_out] == ["3.png", "7.png"]
    assert [picture.path.stem for picture in found.pictures] == ["0", "1", "2", "4", "5", "6", "8"]
    assert {picture.image.shape for picture in (*found.held_out, *found.pictures)} == {(*SIZE, 3)}
    assert not found.shared


@pytest.mark.parametrize("count", [2, 3])
def test_of_few_pictures_the_last_is_held_out(count: int, tmp_path: Path) -> None:
    found = _load(write_pictures(tmp_path / "c", count))
    assert (len(found.pictures), len(found.held_out)) == (count - 1, 1)


def test_one_picture_is_both(tmp_path: Path) -> None:
    found = _load(write_pictures(tmp_path / "c", 1))
    assert found.shared
    assert found.pictures == found.held_out


def test_subfolders_are_looked_into_where_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "c").mkdir(exist_ok=True)
        write_pictures(tmp_path / "c" / name, 2)
    found = _load(tmp_path / "c", recursive=True)
    assert len(found.pictures) + len(found.held_out) == 4
    with pytest.raises(InputError, match=r"holds no images; .* \(--calib-recursive\)"):
        _load(tmp_path / "c")


def test_void_of_a_mask_is_no_background(tmp_path: Path) -> None:
    folder, mask = write_pictures(tmp_path / "c", 4), np.zeros((40, 60), np.uint8)
    mask[:, 20:], mask[:, 30:], mask[:, 40:] = 128, 200, 255
    cv2.imwrite(str(tmp_path / "3.png"), mask)
    (picture,) = _load(LabelledPictures(folder, tmp_path, ignore=128, positive_label=255), 2).held_out
    assert picture.truth is not None
    assert np.array_equal(picture.truth, np.select([mask == 128, mask >= 128], [VOID, 1], 0))
    assert picture.void == VOID
    (note,) = picture.notes
    assert note.startswith("label value 200 is cut at half")


@pytest.mark.parametrize("way", ["indices", "reduce_zero_label", "csv", "colours", "palette", "suffix", "positive"])
def test_labels_mean_what_they_mean_to_eval(way: str, tmp_path: Path) -> None:
    folder, classes = write_pictures(tmp_path / "c", 4), np.arange(2400).reshape(40, 60) % 21
    void = np.zeros((40, 60), bool)
    void[:5] = True
    palette = np.array([*label_set("voc", 21).palette, (224, 224, 192)], np.uint8)
    options: dict[str, Any] = {}
    stored: NDArray[Any] = np.where(void, 255, classes)
    if way == "reduce_zero_label":
        stored, options = np.where(void, 0, classes + 1), {"reduce_zero_label": True}
    elif way == "csv":
        (tmp_path / "map.csv").write_text("".join(f"{k + 100},{k}\n" for k in range(21)) + "7,void\n", encoding="utf-8")
        stored, options = np.where(void, 7, classes + 100), {"label_map": tmp_path / "map.csv"}
    elif way in ("colours", "palette"):
        stored = palette[np.where(void, 21, classes)]
    elif way == "positive":
        classes = (classes > 10).astype(int)
        stored, options = np.where(void, 128, classes * 255), {"positive_label": 255, "ignore": 128}
    else:
        options = {"ignore": 255, **({"label_suffix": "_gt.png"} if way == "suffix" else {})}
    name = "3_gt.png" if way == "suffix" else "3.png"
    _write(tmp_path / name, stored.astype(np.uint8), indexed=way == "palette")
    found = _load(LabelledPictures(folder, tmp_path, **options), 2 if way == "positive" else 21)
    truth, void_label = found.held_out[0].truth, found.held_out[0].void
    assert truth is not None
    assert np.array_equal(truth == void_label, void)
    assert np.array_equal(truth[~void], classes[~void])


def _write(file: Path, stored: NDArray[np.uint8], *, indexed: bool) -> None:
    if not indexed:
        cv2.imwrite(str(file), stored[..., ::-1] if stored.ndim == 3 else stored)
        return
    Image = pytest.importorskip("PIL.Image")
    Image.fromarray(stored).quantize(256, dither=0).save(file)  # numbers the colours as it likes


def test_a_data_set_is_read_as_it_was_downloaded(tmp_path: Path) -> None:
    city = tmp_path / "leftImg8bit" / "val" / "ulm"
    city.mkdir(parents=True)
    for file in write_pictures(tmp_path / "c", 4).iterdir():
        file.rename(city / f"{file.stem}_leftImg8bit.png")
    (tmp_path / "gtFine" / "val" / "ulm").mkdir(parents=True)
    ids = np.full((40, 60), 7, np.uint8)
    ids[:, 30:], ids[:, 50:] = 26, 3
    cv2.imwrite(str(tmp_path / "gtFine" / "val" / "ulm" / "3_gtFine_labelIds.png"), ids)
    found = _load(LabelledPictures.from_dataset("cityscapes", tmp_path), 20)
    truth = found.held_out[0].truth
    assert truth is not None
    assert np.unique(truth).tolist() == [0, 13, VOID]
    assert found.reader is not None
    assert (len(found.reader.names), found.held_out[0].void) == (19, VOID)
    with pytest.raises(UsageError, match="has 19 classes, the network 4"):
        _load(LabelledPictures.from_dataset("cityscapes", tmp_path))


def test_void_as_the_last_class_is_not_scored(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "c", 4)
    cv2.imwrite(str(tmp_path / "3.png"), np.full((40, 60), 3, np.uint8))
    found = _load(LabelledPictures(folder, tmp_path, ignore=3))
    assert found.reader is not None
    assert (len(found.reader.names), found.held_out[0].void) == (3, 3)


def test_a_label_map_of_another_size_is_read_and_told(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "c", 4)
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((20, 30), np.uint8))
    (picture,) = _load(LabelledPictures(folder, tmp_path)).held_out
    assert picture.truth is not None
    assert picture.truth.shape == (20, 30)
    assert picture.notes == (OWN_SIZE,)


def test_damage_is_told(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "c", 4)
    file = folder / "1.png"
    data = file.read_bytes()
    file.write_bytes(data[:33] + (4).to_bytes(4, "big") + b"tEXt" + b"a\0bc" + bytes(4) + data[33:])
    (note,) = _load(folder).pictures[1].notes
    assert note.startswith(f"'{file}' is damaged: its tEXt chunk has a wrong checksum")


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of calibration pictures"):
        _load(tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no images"):
        _load(empty)
    folder = write_pictures(tmp_path / "c", 4)
    data = LabelledPictures(folder, empty, flags="--calib-")
    with pytest.raises(InputError, match=r"4 of 4 pictures have no label map in .* \(--calib-label-suffix\)"):
        _load(data)
    cv2.imwrite(str(empty / "2.png"), np.zeros((40, 60), np.uint8))
    with pytest.raises(InputError, match=r"no label map at '.*3\.png'"):
        _load(data)
    cv2.imwrite(str(empty / "3.png"), np.zeros((10, 60), np.uint8))
    with pytest.raises(InputError, match="is 10x60, its picture 40x60"):
        _load(data)
    cv2.imwrite(str(empty / "3.png"), np.full((40, 60), 255, np.uint8))
    with pytest.raises(InputError, match=r"holds 255, expected 0\.\.3; 255 is usually void; use --calib-ignore 255"):
        _load(data)
    cv2.imwrite(str(empty / "3.png"), np.full((40, 60), 26, np.uint8))
    with pytest.raises(MisreadError, match="use --calib-dataset cityscapes ROOT, or --calib-label-map"):
        _load(data, 19)
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1\.png"):
        _load(folder)


def test_two_pictures_of_one_label_map_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "c", 4)
    (folder / "3.jpg").write_bytes((folder / "3.png").read_bytes())
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((40, 60), np.uint8))
    with pytest.raises(InputError, match=r"3\.(png|jpg)' and another of the same stem"):
        _load(LabelledPictures(folder, tmp_path))


def test_even_spacing_keeps_order_and_ends() -> None:
    files = [Path(str(index)) for index in range(10)]
    assert evenly_spaced(files, 20) == files
    assert [path.name for path in evenly_spaced(files, 4)] == ["0", "2", "5", "7"]


def test_pictures_of_four_channels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *SIZE, 4), dtype=np.uint8)
    for index, image in enumerate(images):
        np.save(tmp_path / f"{index}.npy", image)

    def load() -> Calibration:
        return load_calibration(list_calibration(tmp_path, channels=4), SIZE, RULE, channels=4)

    found = load()
    assert [picture.path.name for picture in found.held_out] == ["3.npy"]
    np.testing.assert_array_equal(found.held_out[0].image, images[3])
    np.save(tmp_path / "5.npy", images[0, ..., :3])
    with pytest.raises(InputError, match=r"5.npy' has shape .* takes 4 channels"):
        load()
