"""Pictures: files that are right, files that are not, arrays of every shape, and the resize rules."""

from __future__ import annotations

import builtins
import struct
import zlib
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import InputError, SizeError, TargetUnavailableError, UsageError
from edgeseg.images import as_rgb, depth_notes, fit_image, load_image, read_image
from edgeseg.postprocess import Region
from edgeseg.resizing import resize
from edgeseg.specs import ResizeFilter, ResizeRule
from tests.pictures import Image, encoded

U8 = NDArray[np.uint8]

# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_come_back_as_they_were(tmp_path: Path, picture: U8, kind: str) -> None:
    file = tmp_path / "Straße 写真.bin"
    file.write_bytes(encoded(picture, kind))
    read = read_image(file)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert np.array_equal(read, picture)
    assert np.array_equal(read_image(str(file)), picture)


def test_jpeg_is_rgb(tmp_path: Path, smooth: U8) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(smooth, "JPEG", quality=95, subsampling=0))
    assert np.abs(read_image(file).astype(int) - smooth).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, smooth: U8, orientation: int) -> None:
    turns = {1: 0, 3: 2, 6: -1, 8: 1, 2: 0, 4: 2, 5: 1, 7: -1}  # what EXIF says is done to the stored picture
    expected = np.rot90(smooth, turns[orientation])
    if orientation in (2, 4):
        expected = expected[:, ::-1]
    if orientation in (5, 7):
        expected = np.rot90(smooth, -turns[orientation])[:, ::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(smooth, "JPEG", quality=95, subsampling=0, exif=exif))
    read = read_image(file)
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= 12


def test_gray_palette_and_alpha(tmp_path: Path, picture: U8) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture[..., 0], "PNG"))
    assert np.array_equal(read_image(file), np.repeat(picture[..., :1], 3, axis=2))
    alpha = np.dstack((picture, np.arange(960, dtype=np.uint16).reshape(24, 40).astype(np.uint8)))
    file.write_bytes(encoded(alpha, "PNG"))
    assert np.array_equal(read_image(file), picture)
    indexed = Image.fromarray(picture).quantize(16)
    indexed.save(file)
    assert np.array_equal(read_image(file), np.array(indexed.convert("RGB")))


def test_sixteen_bits_are_divided_by_257_and_rounded(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 385, 386, 65406, 65407, 65535]], np.uint16)
    file = tmp_path / "a.png"
    file.write_bytes(cv2.imencode(".png", np.dstack((values, values, values)))[1].tobytes())
    expected = [0, 0, 1, 1, 1, 2, 254, 255, 255]
    assert read_image(file)[0, :, 0].tolist() == expected
    assert as_rgb(values)[0, :, 2].tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.97])
def test_files_cut_short_are_refused(
    tmp_path: Path, picture: U8, kind: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(picture, kind)
    file = tmp_path / "a.bin"
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"ends early|not a picture|damaged"):
        read_image(file)
    file.write_bytes(data)
    assert read_image(file).shape == picture.shape


def test_a_progressive_jpeg_with_bytes_after_its_end_is_whole(tmp_path: Path, smooth: U8) -> None:
    file = tmp_path / "a.jpg"
    data = encoded(smooth, "JPEG", progressive=True, quality=95)
    file.write_bytes(data + b"maker's notes")
    assert read_image(file).shape == smooth.shape
    file.write_bytes(data[:-2])
    with pytest.raises(InputError, match="ends early"):
        read_image(file)


def test_a_thumbnail_s_end_is_not_the_picture_s(tmp_path: Path, smooth: U8) -> None:
    data = encoded(smooth, "JPEG")
    note = b"\xff\xd8 thumbnail \xff\xd9"
    data = data[:2] + b"\xff\xee" + struct.pack(">H", len(note) + 2) + note + data[2:]
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    assert read_image(file).shape == smooth.shape
    file.write_bytes(data[:-2])
    with pytest.raises(InputError, match="ends early"):
        read_image(file)


def test_cmyk_is_refused(tmp_path: Path, smooth: U8) -> None:
    file = tmp_path / "a.jpg"
    Image.fromarray(smooth).convert("CMYK").save(file)
    with pytest.raises(InputError, match="CMYK"):
        read_image(file)


def test_huge_pictures_are_refused_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">II5B", 40000, 30000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    file = tmp_path / "a.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(InputError, match="30000x40000, above 100000000 pixels"):
        read_image(file)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.tiff"
    file.write_bytes(cv2.imencode(".tiff", np.ones((4, 4, 3), np.float32))[1].tobytes())
    with pytest.raises(InputError, match="float32 values; scale it to uint8"):
        read_image(file)


def test_files_that_are_no_pictures_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match="is a directory"):
        read_image(tmp_path)
    file = tmp_path / "a.png"
    file.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        read_image(file)
    for data in (b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"RIFF", b"BM" + bytes(60)):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"ends early|not a picture|damaged"):
            read_image(file)


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, "\x1b[2J.png"])
def test_paths_that_cannot_be_are_one_line(path: str) -> None:
    with pytest.raises(InputError, match=r"cannot read picture '.*check the path") as caught:
        read_image(path)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_the_limit_is_the_caller_s(tmp_path: Path, picture: U8) -> None:
    file = tmp_path / "a.bin"
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "PPM"):
        file.write_bytes(encoded(np.tile(picture, (4, 4, 1)), kind))
        assert read_image(file, max_pixels=2 * 96 * 160).shape == (96, 160, 3)
        with pytest.raises(InputError, match=r"96x160, above 15359 pixels; .*max_pixels"):
            read_image(file, max_pixels=96 * 160 - 1)
    with pytest.raises(UsageError, match="max_pixels is 0"):
        read_image(file, max_pixels=0)
    file.write_bytes(bytes(1 << 27))
    with pytest.raises(InputError, match="134217728 bytes, more than a picture of 1000 pixels"):
        read_image(file, max_pixels=1000)


def test_a_decoder_s_memory_counts(tmp_path: Path, picture: U8) -> None:
    file = tmp_path / "a.jp2"
    file.write_bytes(encoded(np.tile(picture, (4, 4, 1)), "JPEG2000"))
    with pytest.raises(InputError, match="takes 12 bytes per pixel to decode as JPEG 2000"):
        read_image(file, max_pixels=96 * 160)


def test_many_scans_are_refused_and_ordinary_ones_are_not(tmp_path: Path) -> None:
    gray = np.zeros((2000, 2000), np.uint8)
    data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data.rfind(b"\xff\xda")
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    assert read_image(file).shape == (2000, 2000, 3)
    file.write_bytes(data[:last] + data[last:-2] * 200 + data[-2:])
    with pytest.raises(InputError, match=r"2000x2000 in 20\d scans"):
        read_image(file)


def test_every_sixteen_bit_value_is_divided_exactly() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    assert np.array_equal(as_rgb(values)[..., 0], expected)
    for view in (values[:, ::-1], values[..., None], np.dstack((values, values, values))[::-1]):
        found = as_rgb(view)
        assert np.array_equal(found[..., 0], as_rgb(np.ascontiguousarray(view))[..., 0])
        assert np.array_equal(np.sort(found[..., 1], axis=None), np.sort(expected, axis=None))


# --- arrays ------------------------------------------------------------------------------------------------------


def test_arrays_of_every_accepted_shape(picture: U8) -> None:
    gray, alpha = picture[..., 0], np.dstack((picture, picture[..., 0]))
    for array in (gray, gray[..., None]):
        for color in ("rgb", "bgr"):
            found = as_rgb(array, color)
            assert np.array_equal(found, np.repeat(gray[..., None], 3, axis=2))
    assert as_rgb(picture) is picture
    for array in (picture, alpha):
        assert np.array_equal(as_rgb(array), picture)
        assert np.array_equal(as_rgb(array, "bgr"), picture[..., ::-1])


def test_any_strides_are_taken(picture: U8) -> None:
    for view in (picture[::-1, ::-1], picture[::2, 1::3], picture[..., ::-1], picture.transpose(1, 0, 2)):
        for color in ("rgb", "bgr"):
            found = as_rgb(view, color)
            assert found.flags.c_contiguous
            assert np.array_equal(found, view if color == "rgb" else view[..., ::-1])


def test_the_caller_s_array_is_left_as_it_was(picture: U8) -> None:
    before = picture.copy()
    as_rgb(picture, "bgr")
    fit_image(picture, (24, 40), ResizeRule())
    fit_image(picture, (50, 50), ResizeRule("letterbox"))
    assert np.array_equal(picture, before)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([[0, 1]], "numpy array of uint8 .height, width, 3., got builtins.list"),
        (None, "NoneType"),
        (np.zeros((2, 2, 3), bool), "bool values"),
        (np.zeros((2, 2, 3), np.int64), "int64 values"),
        (np.zeros((2, 2, 3), np.float32), "float32 values; scale it to uint8 0..255"),
        (np.zeros((2, 2, 2), np.uint8), "shape \\(2, 2, 2\\)"),
        (np.zeros((3, 5, 6), np.uint8), "channels last"),
        (np.zeros((1, 5, 6, 3), np.uint8), "got shape"),
        (np.zeros((0, 6, 3), np.uint8), "no pixels"),
    ],
)
def test_other_arrays_are_refused(array: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_rgb(array)


def test_tensors_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"got torch.Tensor"):
        as_rgb(torch.zeros(2, 2, 3, dtype=torch.uint8))


def test_an_unknown_colour_order_is_refused(picture: U8) -> None:
    with pytest.raises(InputError, match="neither 'rgb' nor 'bgr'"):
        as_rgb(picture, "gbr")  # type: ignore[arg-type]


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["stretch", "letterbox", "none"])
def test_the_picture_itself_where_sizes_agree(picture: U8, mode: Any) -> None:
    fitted, region = fit_image(picture, (24, 40), ResizeRule(mode))
    assert fitted is picture
    assert region is None


@pytest.mark.parametrize("kind", get_args(ResizeFilter))
def test_stretch_resizes(picture: U8, kind: ResizeFilter) -> None:
    for size in ((12, 20), (50, 30), (1, 1)):
        fitted, region = fit_image(picture, size, ResizeRule("stretch", kind))
        assert region is None
        assert np.array_equal(fitted, resize(picture, size, kind))


def test_pillow_s_bilinear_is_antialiased(picture: U8) -> None:
    fitted, _ = fit_image(picture, (6, 10), ResizeRule("stretch", "pillow_bilinear"))
    expected = Image.fromarray(picture).resize((10, 24), Image.Resampling.BILINEAR)
    expected = expected.resize((10, 6), Image.Resampling.BILINEAR)
    assert np.array_equal(fitted, np.array(expected))
    assert not np.array_equal(fitted, fit_image(picture, (6, 10), ResizeRule())[0])


def test_pillow_missing_is_said(picture: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pillow(name: str, *args: Any, **options: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(TargetUnavailableError, match=r"pip install 'edgeseg\[pillow\]'"):
        fit_image(picture, (6, 10), ResizeRule("stretch", "pillow_bilinear"))


def test_letterbox_keeps_the_aspect_and_says_where(picture: U8) -> None:
    rule = ResizeRule("letterbox", pad_value=(1, 2, 3))
    fitted, region = fit_image(picture, (49, 80), rule)
    assert region == Region((49, 80), 0.0, 0.0, 48.0, 80.0)
    assert (fitted[48] == (1, 2, 3)).all()
    assert np.array_equal(fitted[:48], resize(picture, (48, 80), "linear"))
    fitted, region = fit_image(picture, (12, 64), rule)
    assert region == Region((12, 64), 0.0, 22.0, 12.0, 20.0)
    assert np.array_equal(fitted[:, 22:42], resize(picture, (12, 20), "linear"))
    assert (fitted[:, :22] == (1, 2, 3)).all()
    assert (fitted[:, 42:] == (1, 2, 3)).all()


def test_letterbox_without_resizing_only_pads(picture: U8) -> None:
    fitted, region = fit_image(picture, (40, 40), ResizeRule("letterbox"))
    assert region == Region((40, 40), 8.0, 0.0, 24.0, 40.0)
    assert np.array_equal(fitted[8:32], picture)


def test_letterbox_of_a_line_keeps_a_pixel() -> None:
    fitted, region = fit_image(np.full((1, 500, 3), 9, np.uint8), (32, 32), ResizeRule("letterbox"))
    assert region == Region((32, 32), 15.0, 0.0, 1.0, 32.0)
    assert (fitted[15] == 9).all()


def test_memory_that_runs_out_after_decoding_is_the_picture_s_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise cv2.error("Insufficient memory")

    monkeypatch.setattr(cv2, "convertScaleAbs", fails)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((4, 6), np.uint16))[1].tobytes())
    with pytest.raises(InputError, match=r"a.png' is 4x6, and memory ran out"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("Insufficient memory")])
def test_a_picture_that_cannot_be_resized_fails_by_itself(
    picture: U8, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cv2, "resize", fails)
    for mode in ("stretch", "letterbox"):
        with pytest.raises(InputError, match="the picture is 24x40 and cannot be resized to 9x9"):
            fit_image(picture, (9, 9), ResizeRule(mode))


def test_no_resizing_names_both_sizes(picture: U8) -> None:
    with pytest.raises(SizeError, match="the picture is 24x40 and this network takes 32x64"):
        fit_image(picture, (32, 64), ResizeRule("none"))


@pytest.mark.parametrize(("largest", "told"), [(0, 0), (1023, 1), (10000, 1), (16383, 1), (16384, 0), (65535, 0)])
def test_sixteen_bits_that_are_hardly_used_are_told(tmp_path: Path, largest: int, told: int) -> None:
    """10, 12 and 14 bits and reflectances become dark by the rule for 16."""
    image = np.full((6, 8, 3), largest, np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "a.tif"), image)
    for name in ("a.png", "a.tif"):
        notes = load_image(tmp_path / name).notes
        assert sum("less than a quarter of their range" in note for note in notes) == told
    assert len(depth_notes(image)) == told
    assert depth_notes(image.astype(np.uint8)) == ()
