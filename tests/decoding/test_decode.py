"""Decoded pixels are OpenCV's, damage is named, and nothing is printed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.decoding._hush import hushed
from edgeseg.errors import InputError
from edgeseg.images import as_rgb, load_image, read_image
from tests.pictures import Image, encoded

U8 = NDArray[np.uint8]

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


def test_a_hole_in_a_jpeg_is_reported_and_with_strict_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
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
    lines = capfd.readouterr().err.split()
    assert sorted(lines[:-1], key=int) == [str(index) for index in range(100)]
    assert lines[-1] == "end"


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
