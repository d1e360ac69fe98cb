"""Every kind of pixels in every container: read by the stated rule, or refused by what it is."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.decoding import decode
from edgeseg.decoding.headers import measure
from edgeseg.errors import InputError
from edgeseg.images import load_image
from tests.pictures import Image, encoded
from tests.tiffs import tiff

U8 = NDArray[np.uint8]


@pytest.fixture
def colours() -> U8:
    """Four colours in the quarters of 32 x 48 pixels, so that every turn and every mixed channel shows."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:], picture[16:, :24] = (200, 100, 0), (0, 255, 50), (30, 60, 250)
    return picture


def in_bits(picture: U8, bits: int) -> NDArray[np.int64]:
    """Values of `bits` bits that stand for a picture."""
    return np.rint(picture / 255 * ((1 << bits) - 1)).astype(np.int64)


def read(data: bytes, tmp_path: Path) -> U8:
    file = tmp_path / "a.bin"
    file.write_bytes(data)
    return load_image(file).image


# --- TIFF ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_tiffs_of_any_bits_are_scaled_to_eight(tmp_path: Path, colours: U8, bits: int, order: str) -> None:
    values, alpha = in_bits(colours, bits), np.full((32, 48, 1), 1 << (bits - 2))
    gray = np.repeat(colours[..., :1], 3, axis=2)
    assert np.array_equal(read(tiff(values, bits, order=order), tmp_path), colours)
    for kind in (0, 1, 2):
        assert np.array_equal(read(tiff(np.dstack([values, alpha]), bits, order=order, t338=kind), tmp_path), colours)
    assert np.array_equal(read(tiff(values[..., :1], bits, 1, order=order), tmp_path), gray)
    black = (1 << bits) - 1 - values[..., :1]
    assert np.array_equal(read(tiff(black, bits, 0, order=order), tmp_path), gray)


@pytest.mark.parametrize("tile", [(32, 32), (16, 64)])
def test_tiles_and_planes_of_eight_bits(tmp_path: Path, colours: U8, tile: tuple[int, int]) -> None:
    for planar in (False, True):
        assert np.array_equal(read(tiff(colours, tile=tile, planar=planar), tmp_path), colours)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"bits": 12}, {"bits": 16}, {"bits": 16, "order": ">"}, {"tile": (32, 32)}])
def test_the_orientation_of_tiffs(tmp_path: Path, colours: U8, options: dict[str, Any], orientation: int) -> None:
    from PIL import ImageOps

    turned = Image.fromarray(colours)
    turned.getexif()[0x0112] = orientation
    data = tiff(in_bits(colours, options.get("bits", 8)), t274=orientation, **options)
    assert np.array_equal(read(data, tmp_path), np.array(ImageOps.exif_transpose(turned)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 12, "planar": True}, "12 bits that stores each channel by itself"),
        ({"bits": 16, "planar": True}, "16 bits that stores each channel by itself"),
        ({"bits": 4}, "3 channels of 4 bits, which OpenCV does not read"),
        ({"bits": 9}, "3 channels of 9 bits, which OpenCV does not read"),
        ({"bits": 1}, "3 channels of 1 bits, which OpenCV does not read"),
        ({"bits": 32}, "holds uint32 values"),
        ({"bits": 8, "numbers": 2}, "holds int8 values"),
        ({"bits": 16, "numbers": 2}, "holds int16 values"),
        ({"bits": 32, "numbers": 2}, "holds int32 values"),
        ({"bits": 16, "numbers": 3}, "holds float16 values; scale it to uint8"),
        ({"bits": 32, "numbers": 3}, "holds float32 values; scale it to uint8"),
        ({"bits": 64, "numbers": 3}, "holds float64 values; scale it to uint8"),
        ({"colour": 1}, "3 channels of gray"),
        ({"colour": 8}, "3 channels of CIE Lab"),
        ({"colour": 5}, "holds CMYK colours"),
        ({"colour": 6, "bits": 16}, "16 bits of YCbCr, expected 8"),
        ({"colour": 32803}, r"colour filter array \(Bayer\)"),
        ({"colour": 34892}, "raw photograph"),
        ({"t50706": 1}, "raw photograph"),
        ({"t254": 1}, "begins with a thumbnail"),
        ({"tile": (16, 16)}, "tiles of 16x16, which OpenCV does not read"),
    ],
)
def test_tiffs_that_are_refused_by_what_they_hold(colours: U8, options: dict[str, Any], words: str) -> None:
    samples = colours // 255 if options.get("bits", 8) < 8 else colours
    with pytest.raises(InputError, match=f"^a picture .*{words}") as caught:
        decode(tiff(samples, **options), "a picture")
    assert "damaged" not in str(caught.value)


def test_a_tiff_whose_pixels_are_cut_is_cut_short(colours: U8) -> None:
    with pytest.raises(InputError, match="ends early"):
        decode(tiff(colours)[:-1], "a picture")


@pytest.mark.parametrize(
    ("later", "noted"), [((), False), ((1,), False), ((4, 1), False), ((1, 0), True), ((0,), True)]
)
def test_pages_are_noted_and_smaller_copies_are_not(colours: U8, later: tuple[int, ...], noted: bool) -> None:
    found = decode(tiff(colours, later=later), "a picture")
    assert np.array_equal(found.image, colours)
    assert found.notes == (("only the first of its pages is taken",) if noted else ())


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_colour_tables(tmp_path: Path, bits: int) -> None:
    count = 1 << bits
    table = np.random.default_rng(0).integers(0, 256, (count, 3), dtype=np.uint8)
    samples = (np.arange(32 * 48) % count).reshape(32, 48, 1)
    data = tiff(samples, bits, 3, table=(table.astype(int) * 257).T.ravel().tolist())
    assert np.array_equal(read(data, tmp_path), table[samples[..., 0]])


@pytest.mark.parametrize(
    ("mode", "words"), [("CMYK", "holds CMYK colours"), ("YCbCr", "JPEG 2000 in sYCC, expected gray")]
)
def test_colours_of_a_jpeg_2000_that_are_refused(colours: U8, mode: str, words: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(colours).convert(mode).save(stream, "JPEG2000")
    with pytest.raises(InputError, match=f"^a picture .*{words}"):
        decode(stream.getvalue(), "a picture")


def test_a_bmp_whose_masks_exchange_the_colours_is_refused() -> None:
    for masks, good in (((0xFF0000, 0xFF00, 0xFF), True), ((0xFF, 0xFF00, 0xFF0000), False)):
        head = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0) + struct.pack("<III", *masks)
        data = b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + head + b"\1\2\3\0"
        if good:
            assert decode(data, "a picture").image.ravel().tolist() == [3, 2, 1]
            continue
        with pytest.raises(InputError, match="BMP whose colours lie in unusual bits"):
            decode(data, "a picture")


def test_a_band_beside_rgb_is_left_out_and_noted(colours: U8) -> None:
    more = np.dstack([colours, colours[..., :1]])
    for alpha, noted in ((None, True), (0, True), (1, False), (2, False)):
        options: dict[str, Any] = {} if alpha is None else {"t338": alpha}
        found = decode(tiff(more, **options), "a picture")
        assert np.array_equal(found.image, colours)
        assert bool(found.notes) == noted
    assert decode(tiff(colours), "a picture").notes == ()


# --- values below the type's largest -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif_of_any_bits_is_scaled_to_eight(tmp_path: Path, colours: U8, bits: int) -> None:
    values = in_bits(colours, bits).astype(np.uint8 if bits == 8 else np.uint16)
    options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    if not cv2.haveImageWriter(".avif"):
        pytest.skip("this OpenCV writes no AVIF")
    data = cv2.imencode(".avif", values[..., ::-1], options)[1].tobytes()
    assert measure(data).bits == bits
    assert np.abs(read(data, tmp_path).astype(int) - colours).max() <= 1


@pytest.mark.parametrize("bits", [9, 10, 12, 15, 16])
def test_jpeg_2000_of_any_bits_is_scaled_to_eight(tmp_path: Path, colours: U8, bits: int) -> None:
    shifted = in_bits(colours, bits)[..., 0] + (1 << 15) - (1 << (bits - 1))  # the level that lies in the middle
    data = bytearray(encoded(shifted.astype(np.uint16), "JPEG2000"))
    data[data.index(b"\xff\x4f\xff\x51") + 42] = bits - 1
    assert np.array_equal(read(bytes(data), tmp_path), np.repeat(colours[..., :1], 3, axis=2))


@settings(max_examples=40, deadline=None)
@given(most=st.integers(1, 65535), kind=st.sampled_from([2, 3, 5, 6, 7]), seed=st.integers(0, 99))
def test_anymaps_of_any_largest_value_are_scaled_to_eight_bits(most: int, kind: int, seed: int) -> None:
    channels = 1 if kind in (2, 5) else 3
    values = np.random.default_rng(seed).integers(0, most + 1, (5, 7, channels))
    head = f"P{kind}\n# a comment\n7 5\n{most}\n".encode()
    if kind == 7:
        head = f"P7\nWIDTH 7\nHEIGHT 5\nDEPTH 3\nMAXVAL {most}\nTUPLTYPE RGB\nENDHDR\n".encode()
    body = values.astype(">u2" if most > 255 else "u1").tobytes()
    if kind < 4:
        body = b" ".join(b"%d" % value for value in values.ravel()) + b"\n"
    found = decode(head + body, "a picture").image
    full = 255 if most <= 255 else 65535
    expected = np.floor(values * full / most + 0.5)
    assert np.abs(found - expected).max() <= (0 if most in (255, 65535) else 1)
    assert found.dtype == (np.uint8 if most <= 255 else np.uint16)


@pytest.mark.parametrize("kind", [b"BLACKANDWHITE", b"GRAYSCALE"])
def test_a_pam_of_one_bit(kind: bytes) -> None:
    data = b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 1\nMAXVAL 1\nTUPLTYPE " + kind + b"\nENDHDR\n\x00\x01"
    assert decode(data, "a picture").image[0, :, 0].tolist() == [0, 255]


def test_label_maps_keep_the_values_that_are_stored() -> None:
    assert decode(b"P5 3 1 19 \x00\x07\x13", "a map", stored=True).image.ravel().tolist() == [0, 7, 19]


# --- orientation, films, damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "TIFF", "PNG"])
def test_orientation_is_applied_once(tmp_path: Path, colours: U8, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = encoded(colours, kind, exif=exif, **plain.get(kind, {}))
    from PIL import ImageOps

    turned = Image.fromarray(colours)
    turned.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(turned))
    found = read(data, tmp_path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 6


def test_an_avif_film_gives_its_first_picture(colours: U8) -> None:
    options = {"quality": 100, "subsampling": "4:4:4"}
    data = encoded(colours, "AVIF", save_all=True, append_images=[Image.fromarray(255 - colours)], **options)
    found = decode(data, "a film")
    assert np.abs(found.image.astype(int) - colours).max() <= 6
    assert found.notes == ("only the first of its pictures is taken",)
    assert decode(encoded(colours, "AVIF"), "a picture").notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_what_is_cut_short_is_called_so(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    with pytest.raises(InputError, match="a picture ends early"):
        decode(data[: int(len(data) * share)], "a picture")
    assert decode(data + b"what follows", "a picture").damaged == ()


def test_a_jpeg_of_other_than_eight_bits_is_refused_by_name(colours: U8) -> None:
    data = bytearray(encoded(colours, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(InputError, match="JPEG of 12 bits per channel, expected 8"):
        decode(bytes(data), "a picture")


@pytest.mark.parametrize(
    "error", [cv2.error("odd"), MemoryError(), struct.error("odd"), RecursionError("odd"), KeyError(3)]
)
def test_whatever_a_decoder_raises_is_the_picture_s_failure(
    colours: U8, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(cv2, "imdecode", broken)
    with pytest.raises(InputError, match=r"^a picture (cannot be decoded|is 32x48, and memory)"):
        decode(encoded(colours, "PNG"), "a picture")


# --- Pillow --------------------------------------------------------------------------------------------------------

HEIF_PLUGIN = '''
"""Stands in for pillow-heif: its pictures are PNGs in a box of HEIC, given upright as pillow-heif gives them."""
from PIL import Image, ImageFile
import io

class HeifImageFile(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        inner = Image.open(io.BytesIO(self.fp.read().split(b"MDAT", 1)[1]))
        self._mode, self._size = inner.mode, inner.size
        self.inner = inner
    def load(self):
        if self.inner is not None:
            self.inner.load()
            self.im, self.inner = self.inner.im, None
        return super(ImageFile.ImageFile, self).load()

def register_heif_opener():
    Image.register_open("HEIF", HeifImageFile, lambda head: head[4:12] == b"ftypheic")
'''


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heic(picture: U8, size: tuple[int, int] | None = None) -> bytes:
    """A HEIC as far as its boxes go, with a PNG for what is coded."""
    height, width = size or picture.shape[:2]
    coded = b"MDAT" + encoded(picture, "PNG")
    properties = box(b"ipco", box(b"ispe", bytes(4), struct.pack(">II", width, height)))
    links = box(b"ipma", bytes(4), struct.pack(">IHBB", 1, 1, 1, 1))

    def before(place: int) -> bytes:
        item = box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", 1, 0, b"hvc1"))
        places = struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, place, len(coded))
        meta = box(
            b"meta",
            bytes(4),
            box(b"pitm", bytes(4), struct.pack(">H", 1)),
            box(b"iinf", bytes(4), struct.pack(">H", 1), item),
            box(b"iprp", properties, links),
            box(b"iloc", bytes(4), places),
        )
        return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + meta + struct.pack(">I4s", 8 + len(coded), b"mdat")

    return before(len(before(0))) + coded


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package pillow_heif that the project finds."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pillow_heif.py").write_text(HEIF_PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    sys.modules.pop("pillow_heif", None)
    Image.OPEN.pop("HEIF", None)
    Image.ID[:] = [name for name in Image.ID if name != "HEIF"]


@pytest.mark.usefixtures("plugin")
def test_heic_is_read_by_pillow_s_plugin(tmp_path: Path, colours: U8) -> None:
    assert np.array_equal(read(heic(colours), tmp_path), colours)
    with pytest.raises(InputError, match="is damaged"):
        decode(heic(colours, (31, 48)), "a picture")
    with pytest.raises(InputError, match="ends early"):
        decode(heic(colours)[:-4], "a picture")
    with pytest.raises(InputError, match="above 100 pixels"):
        decode(heic(colours), "a picture", max_pixels=100)


@pytest.mark.usefixtures("plugin")
def test_a_heic_without_a_primary_picture_is_measured_by_pillow(tmp_path: Path, colours: U8) -> None:
    film = box(b"ftyp", b"heic", bytes(4), b"mif1heic") + box(b"mdat", b"MDAT", encoded(colours, "PNG"))
    assert np.array_equal(read(film, tmp_path), colours)
    with pytest.raises(InputError, match="above 100 pixels"):
        decode(film, "a picture", max_pixels=100)


def test_heic_without_a_plugin_says_what_to_install(colours: U8) -> None:
    with pytest.raises(InputError, match="HEIC, which needs pillow-heif; install it with pip install pillow-heif"):
        decode(heic(colours), "a picture")


def test_a_plugin_that_does_not_import_is_one_sentence(
    tmp_path: Path, colours: U8, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pillow_heif.py").write_text("raise OSError('libheif.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"pillow_heif, which is installed but does not import \(libheif.so.1"):
        decode(heic(colours), "a picture")


@pytest.mark.parametrize("kind", ["AVIF", "GIF"])
def test_pillow_reads_what_opencv_was_built_without(
    tmp_path: Path, colours: U8, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"quality": 100, "subsampling": "4:4:4", "exif": exif} if kind == "AVIF" else {}
    data = encoded(colours, kind, **options)
    with_opencv = read(data, tmp_path)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    found = read(data, tmp_path)
    assert found.shape == ((48, 32, 3) if kind == "AVIF" else (32, 48, 3))
    assert np.abs(found.astype(int) - with_opencv).max() <= 3
    monkeypatch.setattr("edgeseg.decoding._pillow.is_installed", lambda _: False)
    with pytest.raises(InputError, match=f"format {kind}, which needs Pillow"):
        decode(data, "a picture")


def test_rgb_in_a_jpeg_is_told_from_ycc(tmp_path: Path, colours: U8) -> None:
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "JPEG", quality=100, keep_rgb=True)
    assert np.abs(read(stream.getvalue(), tmp_path).astype(int) - colours).max() <= 2
