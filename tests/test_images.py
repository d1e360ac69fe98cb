"""Pictures: files that are right, files that are not, arrays of every shape, and the resize rules."""

from __future__ import annotations

import builtins
import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.decoding._hush import hushed
from edgeseg.errors import InputError, SizeError, TargetUnavailableError, UsageError
from edgeseg.images import as_rgb, fit_image, load_image, read_image
from edgeseg.postprocess import Region
from edgeseg.specs import ResizeFilter, ResizeRule

U8 = NDArray[np.uint8]
Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def picture() -> U8:
    return np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.fixture
def smooth() -> U8:
    """A picture that JPEG and resizing barely change; red falls from left to right, green from the top down."""
    y, x = np.mgrid[0:24, 0:40]
    return np.stack((250 - 6 * x, 250 - 10 * y, np.full_like(x, 60)), axis=2).astype(np.uint8)


def encoded(array: NDArray[Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


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


# --- JPEG and PNG as OpenCV decodes them ---------------------------------------------------------------------------


def by_opencv(data: bytes) -> U8:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    assert found is not None
    return np.asarray(found[..., ::-1], np.uint8)


@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111, 0x121111, 0x411111])
def test_jpeg_pixels_are_opencv_s(tmp_path: Path, sampling: int) -> None:
    file = tmp_path / "a.jpg"
    noise = np.random.default_rng(1).integers(0, 256, (65, 99, 3), dtype=np.uint8)
    for size in ((1, 1), (16, 16), (17, 33), (65, 99)):
        for quality in (5, 80, 100):
            for extra in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]):
                options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling, cv2.IMWRITE_JPEG_QUALITY, quality, *extra]
                data = cv2.imencode(".jpg", noise[: size[0], : size[1]], options)[1].tobytes()
                file.write_bytes(data)
                found = load_image(file)
                assert found.damaged == ()
                assert np.array_equal(found.image, by_opencv(data))


def test_gray_jpeg_pixels_are_opencv_s(tmp_path: Path, smooth: U8) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(smooth[..., 0], "JPEG"))
    assert np.array_equal(read_image(file), by_opencv(file.read_bytes()))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_jpeg_orientation_is_opencv_s(tmp_path: Path, smooth: U8, orientation: int, order: str) -> None:
    start = b"II" if order == "<" else b"MM"
    entries = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 40, 0) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    exif = b"Exif\0\0" + start + struct.pack(f"{order}HIH", 42, 8, 2) + entries + bytes(4)
    data = encoded(smooth, "JPEG", quality=90)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    assert np.array_equal(read_image(file), by_opencv(data))


def test_jpegs_that_simplejpeg_does_not_take_go_through_opencv(
    tmp_path: Path, smooth: U8, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(encoded(np.tile(smooth, (4, 4, 1)), "JPEG", subsampling=0))
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = 0x31  # three luma blocks across for one chroma block
    import simplejpeg

    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(bytes(data), strict=False)
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    found = load_image(file)
    assert found.image.shape == (96, 160, 3)
    assert found.damaged
    assert capfd.readouterr().err == ""
    assert np.array_equal(found.image, by_opencv(bytes(data)))
    assert capfd.readouterr().err != ""  # so there was something to keep quiet


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("unpacked_here", [True, False])
def test_png_pixels_are_opencv_s(
    tmp_path: Path, picture: U8, mode: str, unpacked_here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeseg.decoding._png._UNPACKED_ANYWAY", 0 if unpacked_here else 1 << 20)
    image = Image.fromarray(picture)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    file = tmp_path / "a.png"
    image.save(file)
    expected = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    assert np.array_equal(read_image(file), as_rgb(np.asarray(expected), "bgr"))


# --- damage ------------------------------------------------------------------------------------------------------


def with_hole(size: tuple[int, int] = (240, 320)) -> bytes:
    """A JPEG with zeros in its middle."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    return bytes(data)


def test_a_hole_in_a_jpeg_is_told_and_with_strict_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(with_hole())
    found = load_image(file)
    (note,) = found.damaged
    assert note.startswith("part of the picture is lost or wrong (Corrupt JPEG data")
    assert np.array_equal(read_image(file), found.image)
    with pytest.raises(InputError, match=r"a.jpg' is damaged: part of the picture is lost"):
        load_image(file, strict=True)
    assert capfd.readouterr().err == ""
    assert np.array_equal(found.image, by_opencv(with_hole()))


def png_with(chunk: bytes, picture: U8) -> tuple[bytes, int]:
    """A PNG with a chunk of that kind, and the place of its checksum."""
    data = encoded(picture, "PNG")
    if chunk not in data:
        body = chunk + b"Title\0a picture"
        extra = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        data = data[:33] + extra + data[33:]
    at = data.index(chunk)
    return data, at + 4 + int.from_bytes(data[at - 4 : at], "big")


def test_checksums_of_png_chunks(tmp_path: Path, picture: U8, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.png"
    data, at = png_with(b"tEXt", picture)
    file.write_bytes(data)
    assert load_image(file).damaged == ()
    wrong = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    file.write_bytes(wrong)
    found = load_image(file, strict=False)
    assert found.damaged == ("its tEXt chunk has a wrong checksum and is left out; get the file again",)
    assert np.array_equal(found.image, picture)
    with pytest.raises(InputError, match="is damaged: its tEXt chunk"):
        load_image(file, strict=True)
    for kind in (b"IHDR", b"IDAT", b"IEND"):
        data, at = png_with(kind, picture)
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(InputError, match=f"is damaged: its {kind.decode()} chunk has a wrong checksum"):
            load_image(file)
    assert capfd.readouterr().err == ""


def test_libpng_is_not_heard(tmp_path: Path, picture: U8, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(picture, "PNG")
    body = b"IDAT" + zlib.compress(b"\x09" * (24 * 121))  # no such filter
    start = data.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = data[:start] + chunk + data[-12:]
    file = tmp_path / "a.png"
    file.write_bytes(data)
    with pytest.raises(InputError, match="cannot be decoded: it is damaged"):
        read_image(file)
    assert capfd.readouterr().err == ""
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None
    assert "libpng" in capfd.readouterr().err


def test_an_animation_gives_its_first_picture(tmp_path: Path, picture: U8) -> None:
    others = [Image.fromarray(picture[::-1]), Image.fromarray(picture[:, ::-1])]
    file = tmp_path / "a.bin"
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        file.write_bytes(encoded(picture, kind, save_all=True, append_images=others, **options))
        assert np.array_equal(read_image(file), picture)
    flat = np.full((24, 40, 3), (255, 0, 0), np.uint8)
    file.write_bytes(encoded(flat, "GIF", save_all=True, append_images=others))
    assert np.array_equal(read_image(file), flat)


# --- silence -----------------------------------------------------------------------------------------------------


def test_what_others_write_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with hushed() as outer:
        with hushed() as lines:
            os.write(2, b"libpng warning: iCCP: bad\nmine\nCorrupt JPEG data: 3 extraneous bytes\n")
        assert lines == ["Corrupt JPEG data: 3 extraneous bytes"]
        os.write(2, b"also mine\n")
    assert outer == lines
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "mine\nalso mine\nafter\n"


def test_many_threads_decode_in_silence(tmp_path: Path, picture: U8, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture, "PNG"))
    right: list[bool] = []

    def read() -> None:
        right.extend(np.array_equal(read_image(file), picture) for _ in range(200))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for index in range(100):
        os.write(2, b"%d\n" % index)
    for thread in threads:
        thread.join()
    os.write(2, b"end\n")
    assert right == [True] * 800
    told = capfd.readouterr().err.split()
    assert sorted(told[:-1], key=int) == [str(index) for index in range(100)]
    assert told[-1] == "end"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is POSIX")
def test_a_forked_child_has_its_standard_error_back() -> None:
    code = (
        "import os, warnings\nwarnings.simplefilter('ignore')\nfrom edgeseg.decoding._hush import hushed\n"
        "with hushed():\n    child = os.fork()\n    if not child:\n"
        "        os.write(2, b'child\\n')\n        os._exit(0)\n    os.waitpid(child, 0)\nos.write(2, b'parent\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "child\nparent\n"


def test_a_closed_standard_error_is_no_trouble(tmp_path: Path, picture: U8) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture, "PNG"))
    code = f"import os; from edgeseg.images import read_image; os.close(2); print(read_image({str(file)!r}).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(24, 40, 3)\n"


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


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("linear", cv2.INTER_LINEAR),
        ("area", cv2.INTER_AREA),
        ("cubic", cv2.INTER_CUBIC),
        ("nearest", cv2.INTER_NEAREST),
    ],
)
def test_stretch_is_opencv_s(picture: U8, kind: ResizeFilter, code: int) -> None:
    for size in ((12, 20), (50, 30), (1, 1)):
        fitted, region = fit_image(picture, size, ResizeRule("stretch", kind))
        assert region is None
        assert np.array_equal(fitted, cv2.resize(picture, size[::-1], interpolation=code))


def test_pillow_s_bilinear_is_antialiased(picture: U8) -> None:
    fitted, _ = fit_image(picture, (6, 10), ResizeRule("stretch", "pillow_bilinear"))
    expected = Image.fromarray(picture).resize((10, 6), Image.Resampling.BILINEAR)
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
    assert np.array_equal(fitted[:48], cv2.resize(picture, (80, 48)))
    fitted, region = fit_image(picture, (12, 64), rule)
    assert region == Region((12, 64), 0.0, 22.0, 12.0, 20.0)
    assert np.array_equal(fitted[:, 22:42], cv2.resize(picture, (20, 12)))
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


def test_no_resizing_names_both_sizes(picture: U8) -> None:
    with pytest.raises(SizeError, match="the picture is 24x40 and this network takes 32x64"):
        fit_image(picture, (32, 64), ResizeRule("none"))
