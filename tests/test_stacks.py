"""Arrays, files and stacks of files of any number of channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeseg.errors import InputError, UsageError
from edgeseg.images import fit_image
from edgeseg.resizing import resize
from edgeseg.sources import list_images, open_iterable, open_source, pictures_at
from edgeseg.specs import ResizeRule
from edgeseg.stacks import as_picture, load_picture, name_of, viewable
from tests.channel_tiffs import tiff


def _stored(channels: int, dtype: Any = np.uint8, size: tuple[int, int] = (20, 30)) -> NDArray[Any]:
    high = np.iinfo(dtype).max + 1
    return np.random.default_rng(channels).integers(0, high, (*size, channels), dtype=dtype)


def _eight_bits(image: NDArray[Any]) -> NDArray[np.uint8]:
    wide = image.astype(np.float64) / 257
    return np.rint(wide).astype(np.uint8) if image.dtype.itemsize == 2 else image.astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.dtype(">u2")])
@pytest.mark.parametrize("channels", [2, 4, 5, 13, 200, 512])
def test_arrays_keep_their_channels(channels: int, dtype: Any) -> None:
    image = _stored(channels, np.dtype(dtype).newbyteorder("=")).astype(dtype)
    np.testing.assert_array_equal(as_picture(image, channels), _eight_bits(image))
    np.testing.assert_array_equal(as_picture(image[::-1, ::2], channels), _eight_bits(image[::-1, ::2]))


def test_values_of_16_bits_are_divided_by_257() -> None:
    values = np.array([[[0, 128, 129, 257, 65535]]], np.uint16)
    assert as_picture(values, 5).tolist() == [[[0, 0, 1, 1, 255]]]


def test_an_array_that_fits_is_not_copied() -> None:
    image = _stored(4)
    assert as_picture(image, 4) is image


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (_stored(3), r"has shape \(20, 30, 3\), and this network takes 4 channels, \(height, width, 4\)"),
        (_stored(5), "takes 4 channels"),
        (_stored(4)[..., 0], r"has shape \(20, 30\)"),
        (_stored(4)[None], "takes 4 channels"),
        (_stored(4).transpose(2, 0, 1), "move the channels last"),
        (_stored(4).astype(np.float32), "holds float32 values"),
        (_stored(4).astype(np.int16), "holds int16 values"),
        (_stored(4) > 5, "holds bool values"),
        (np.zeros((0, 3, 4), np.uint8), "has no pixels"),
        (7, "must be a numpy array of uint8 .height, width, 4., got builtins.int"),
    ],
)
def test_other_arrays_are_one_sentence(array: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        as_picture(array, 4)


def test_bgr_is_for_three_channels() -> None:
    with pytest.raises(InputError, match="colour order 'bgr' is for pictures of 3 channels, and this network takes 4"):
        as_picture(_stored(4), 4, "bgr")
    rgb = _stored(3)
    np.testing.assert_array_equal(as_picture(rgb, 3, "bgr"), rgb[..., ::-1])


def _save(folder: Path, kind: str, image: NDArray[Any]) -> Path:
    """Write an image in the file order of its channels."""
    path = folder / f"picture.{kind.split('-')[0]}"
    if kind == "npy":
        np.save(path, image)
    elif kind == "npy-fortran":
        np.save(path, np.asfortranarray(image))
    elif kind == "png":
        cv2.imwrite(str(path), image[..., [2, 1, 0, 3]])
    elif kind == "png-pillow":
        Image.fromarray(image).save(path)
    elif kind == "tif":
        path.write_bytes(tiff(image))
    elif kind == "tif-planar":
        path.write_bytes(tiff(image, planar=True, compression=8))
    elif kind == "tif-opencv":
        cv2.imwrite(str(path), image[..., [2, 1, 0, 3]])
    else:
        cv2.imwritemulti(str(path), [np.ascontiguousarray(image[..., k]) for k in range(image.shape[2])])
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4, 5, 8, 13])
@pytest.mark.parametrize("kind", ["npy", "npy-fortran", "tif", "tif-planar", "tif-pages"])
def test_files_of_any_number_of_channels(kind: str, channels: int, dtype: Any, tmp_path: Path) -> None:
    image = _stored(channels, dtype)
    read = load_picture(_save(tmp_path, kind, image), channels)
    np.testing.assert_array_equal(read.image, _eight_bits(image))
    assert read.image.flags.c_contiguous
    assert read.damaged == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["png", "png-pillow", "tif-opencv"])
def test_files_of_four_channels_keep_their_order(kind: str, dtype: Any, tmp_path: Path) -> None:
    if kind == "png-pillow" and dtype is np.uint16:
        pytest.skip("Pillow has no RGBA of 16 bits")
    image = _stored(4, dtype)
    image[..., 0] //= 4  # red is dark, so that swapped channels show
    np.testing.assert_array_equal(load_picture(_save(tmp_path, kind, image), 4).image, _eight_bits(image))


def test_a_png_of_gray_and_alpha_has_two(tmp_path: Path) -> None:
    image = _stored(2)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png", 2).image, image)


@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 3, 4, 7])
def test_a_stack_is_one_file_per_channel(channels: int, dtype: Any, suffix: str, tmp_path: Path) -> None:
    image = _stored(channels, dtype)
    files = [tmp_path / f"{k}.{suffix}" for k in range(channels)]
    for k, file in enumerate(files):
        plane = np.ascontiguousarray(image[..., k])
        np.save(file, plane) if suffix == "npy" else cv2.imwrite(str(file), plane)
    np.testing.assert_array_equal(load_picture(files, channels).image, _eight_bits(image))
    np.testing.assert_array_equal(load_picture(tuple(map(str, files)), channels).image, _eight_bits(image))
    assert name_of(files) == str(files[0])


def _stack(folder: Path, *images: NDArray[Any]) -> list[Path]:
    files = [folder / f"{k}.png" for k in range(len(images))]
    for file, image in zip(files, images, strict=True):
        cv2.imwrite(str(file), image)
    return files


def test_other_stacks_are_one_sentence(tmp_path: Path) -> None:
    grey, wide, colour = np.zeros((20, 30), np.uint8), np.zeros((20, 31), np.uint8), np.zeros((20, 30, 3), np.uint8)
    with pytest.raises(InputError, match="the stack has 3 files, and this network takes 4 channels; give one each"):
        load_picture(_stack(tmp_path, grey, grey, grey), 4)
    with pytest.raises(InputError, match=r"'.*1.png' is 20x31, the first of its stack 20x30; give files of one size"):
        load_picture(_stack(tmp_path, grey, wide), 2)
    with pytest.raises(InputError, match=r"'.*1.png' is a PNG of 3 channels, expected 1"):
        load_picture(_stack(tmp_path, grey, colour), 2)
    with pytest.raises(InputError, match=r"cannot read picture '.*none.png'"):
        load_picture([*_stack(tmp_path, grey), tmp_path / "none.png"], 2)
    with pytest.raises(InputError, match="a stack is a list of paths, one file per channel"):
        load_picture([grey, grey], 2)  # type: ignore[list-item]
    with pytest.raises(InputError, match="the stack has 0 files"):
        load_picture([], 2)


def _bytes(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_other_files_are_one_sentence(tmp_path: Path) -> None:
    image = _stored(4)
    for suffix in (".jpg", ".png", ".bmp"):
        cv2.imwrite(str(tmp_path / f"c{suffix}"), image[..., :3].copy())
        with pytest.raises(InputError, match=r"of 3 channels, expected 4; more than 3 channels are read from TIFF"):
            load_picture(tmp_path / f"c{suffix}", 4)
    cv2.imwrite(str(tmp_path / "a.webp"), image)
    with pytest.raises(InputError, match="WebP of 4 channels; save it as TIFF"):
        load_picture(tmp_path / "a.webp", 4)
    np.save(tmp_path / "five.npy", _stored(5))
    with pytest.raises(InputError, match=r"five.npy' has shape \(20, 30, 5\), and this network takes 4 channels"):
        load_picture(tmp_path / "five.npy", 4)
    np.save(tmp_path / "first.npy", image.transpose(2, 0, 1))
    with pytest.raises(InputError, match="move the channels last"):
        load_picture(tmp_path / "first.npy", 4)
    np.save(tmp_path / "float.npy", image.astype(np.float32))
    with pytest.raises(InputError, match=r"float.npy' holds float32 values"):
        load_picture(tmp_path / "float.npy", 4)


def test_damaged_and_foreign_arrays_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", _stored(4))
    data = (tmp_path / "whole.npy").read_bytes()
    np.savez(tmp_path / "several.npz", a=_stored(4))
    objects = np.array([{}, []], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    for file in (
        _bytes(tmp_path, "cut.npy", data[:-1]),
        _bytes(tmp_path, "header.npy", data[:40]),
        _bytes(tmp_path, "empty.npy", b""),
        _bytes(tmp_path, "text.npy", b"no array at all"),
        tmp_path / "objects.npy",
        _bytes(tmp_path, "zip.npy", (tmp_path / "several.npz").read_bytes()),
    ):
        with pytest.raises(InputError, match="is no array of numbers"):
            load_picture(file, 4)
    with pytest.raises(InputError, match=r"give it the suffix .npy"):
        load_picture(_bytes(tmp_path, "array.tif", data), 4)
    with pytest.raises(InputError, match=r"cannot read picture '.*none.npy': no such file"):
        load_picture(tmp_path / "none.npy", 4)


@pytest.mark.parametrize("kind", ["npy", "tif", "tif-pages", "png"])
def test_the_limit_on_pixels_holds(kind: str, tmp_path: Path) -> None:
    file = _save(tmp_path, kind, _stored(4))
    assert load_picture(file, 4, max_pixels=600).image.shape == (20, 30, 4)
    with pytest.raises(InputError, match=r"is 20x30, above 599 pixels.*max_pixels"):
        load_picture(file, 4, max_pixels=599)
    with pytest.raises(UsageError, match="max_pixels is 0"):
        load_picture(file, 4, max_pixels=0)


@pytest.mark.parametrize("kind", ["linear", "area", "cubic", "nearest", "pillow_bilinear"])
@pytest.mark.parametrize("channels", [2, 4, 5, 13, 200])
def test_every_filter_resizes_each_channel_as_it_does_grey(channels: int, kind: Any) -> None:
    image = _stored(channels, size=(45, 70))
    size: tuple[int, int]
    for size in ((32, 48), (90, 140), (33, 100)):
        resized, _ = fit_image(image, size, ResizeRule("stretch", kind))
        for k in range(channels):
            plane = np.ascontiguousarray(image[..., k])
            np.testing.assert_array_equal(resized[..., k], resize(plane, size, kind))


@pytest.mark.parametrize(("pad", "wanted"), [(9, [9] * 5), ((1, 2, 3, 4, 5), [1, 2, 3, 4, 5]), ((7, 7, 7), [7] * 5)])
def test_letterbox_pads_every_channel(pad: Any, wanted: list[int]) -> None:
    image = np.full((10, 20, 5), 200, np.uint8)
    fitted, region = fit_image(image, (40, 40), ResizeRule("letterbox", pad_value=pad))
    assert region is not None
    assert (region.top, region.height) == (10.0, 20.0)
    assert fitted.shape == (40, 40, 5)
    assert fitted[0, 0].tolist() == wanted
    assert fitted[20, 20].tolist() == [200] * 5


def test_padding_of_another_count_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="pad_value has 3 numbers, and the picture 5 channels"):
        fit_image(np.zeros((10, 20, 5), np.uint8), (40, 40), ResizeRule("letterbox", pad_value=(1, 2, 3)))


def test_what_is_looked_at() -> None:
    image = _stored(5)
    np.testing.assert_array_equal(viewable(image), image[..., :3])
    np.testing.assert_array_equal(viewable(image[..., :2]), image[..., [0, 0, 0]])
    rgb = _stored(3)
    assert viewable(rgb) is rgb


def test_sources_of_other_channels(tmp_path: Path) -> None:
    image = _stored(5)
    for kind, name in (("npy", "b.npy"), ("tif", "a10.tif"), ("tif-pages", "a9.tiff")):
        _save(tmp_path, kind, image).rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    with open_source(tmp_path, channels=5) as source:
        frames = list(source)
    assert [Path(frame.name).name for frame in frames] == ["a9.tiff", "a10.tif", "b.npy"]
    assert all(frame.image is not None and np.array_equal(frame.image, image) for frame in frames)
    assert [path.name for path in pictures_at(tmp_path, 5)] == ["a9.tiff", "a10.tif", "b.npy"]
    assert [path.name for path in list_images(tmp_path)] == ["a9.tiff", "a10.tif"]
    (frame,) = open_source(tmp_path / "b.npy", channels=5)
    assert frame.image is not None
    assert frame.image.shape == (20, 30, 5)
    (wrong,) = open_source(tmp_path / "b.npy", channels=4)
    assert wrong.image is None
    assert "takes 4 channels" in str(wrong.error)


def test_files_with_commas_between_them_are_a_stack(tmp_path: Path) -> None:
    image = _stored(4)
    stack = _stack(tmp_path, *[np.ascontiguousarray(image[..., k]) for k in range(4)])
    with open_source(",".join(map(str, stack)), channels=4) as source:
        (frame,) = source
        assert (source.kind, source.length, frame.name) == ("image", 1, str(stack[0]))
    assert frame.image is not None
    np.testing.assert_array_equal(frame.image, image)
    np.save(tmp_path / "a,b.npy", image)
    (frame,) = open_source(tmp_path / "a,b.npy", channels=4)
    assert frame.image is not None
    np.testing.assert_array_equal(frame.image, image)
    (frame,) = open_source(f"{stack[0]},{tmp_path / 'none.png'}", channels=2)
    assert "cannot read picture" in str(frame.error)


def test_no_video_or_camera_has_other_channels(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(100))
    for spec in (0, "rtsp://nowhere/x", tmp_path / "film.mp4"):
        with pytest.raises(InputError, match=r"is no picture of 5 channels: give files .* and no video or camera"):
            open_source(spec, channels=5)
    with pytest.raises(InputError, match=r"no picture, folder or video at '.*none.tif'"):
        open_source(tmp_path / "none.tif", channels=5)
    with pytest.raises(InputError, match=r"holds no images; put .npy or .png or .tif or .tiff files there"):
        open_source(tmp_path, channels=5)


def test_iterables_of_other_channels(tmp_path: Path) -> None:
    image = _stored(4)
    stack = _stack(tmp_path, *[np.ascontiguousarray(image[..., k]) for k in range(4)])
    np.save(tmp_path / "a.npy", image)
    items: list[Any] = [image, tmp_path / "a.npy", stack, image[..., :3]]
    frames = list(open_iterable(items, channels=4))
    assert [frame.image is not None and np.array_equal(frame.image, image) for frame in frames] == [True] * 3 + [False]
    assert "takes 4 channels" in str(frames[3].error)
    assert frames[2].name == str(stack[0])


@pytest.mark.parametrize(("largest", "told"), [(3000, 1), (30000, 0)])
def test_sixteen_bits_that_are_hardly_used_are_told(tmp_path: Path, largest: int, told: int) -> None:
    image = np.full((6, 8, 4), largest, np.uint16)
    np.save(tmp_path / "a.npy", image)
    (tmp_path / "a.tif").write_bytes(tiff(image))
    plane = tmp_path / "plane.tif"
    plane.write_bytes(tiff(np.ascontiguousarray(image[..., :1])))
    for file in (tmp_path / "a.npy", tmp_path / "a.tif", [plane] * 4):
        assert len(load_picture(file, 4).notes) == told
    (frame,) = open_iterable([image], channels=4)
    assert len(frame.notes) == told
