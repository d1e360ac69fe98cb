"""Files told by their first bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeseg.decoding.headers import measure
from edgeseg.decoding.signatures import HEAD_BYTES, recognise
from edgeseg.errors import InputError
from tests.pictures import encoded

NOISE = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)

FORMATS = {
    **{"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "GIF": "GIF", "TIFF": "TIFF", "BMP": "BMP", "PPM": "PNM"},
    **{"JPEG2000": "JPEG 2000", "AVIF": "AVIF", "MPO": "JPEG", "DIB": ""},
}


@pytest.mark.parametrize("kind", [kind for kind, name in FORMATS.items() if name])
def test_what_is_read_is_recognised_by_its_beginning_alone(kind: str) -> None:
    data = encoded(NOISE, kind)
    found = recognise(data[:HEAD_BYTES])
    assert found == recognise(data)
    assert found is not None
    assert (found.format, found.film, found.refused) == (FORMATS[kind], False, "")
    assert measure(data).format == found.format


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ICO", r"an icon \(ICO\)"),
        ("PCX", "a PCX picture"),
        ("SGI", "an SGI picture"),
        ("DDS", "a DirectDraw surface"),
        ("QOI", "a QOI picture"),
    ],
)
def test_what_is_not_read_is_named(kind: str, words: str) -> None:
    with pytest.raises(InputError, match=f"^a picture is {words}.*, which edgeseg does not read; save it again as PNG"):
        measure(encoded(NOISE, kind), "a picture")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"8BPS\0\1" + bytes(20), "a Photoshop document"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI" + bytes(40), "a PNG in Apple's own form"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"\xff\x0a" + bytes(20), "a JPEG XL picture"),
        (b"\xef\xbb\xbf<svg width='1'>", "a drawing"),
        (b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg\nwidth='1'>", "a drawing"),
        (b"II*\0\x10\0\0\0CR\2\0", "raw photograph of a camera"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw photograph of a camera"),
        (b"FUJIFILMCCD-RAW 0201", "raw photograph of a camera"),
        (b"IIU\0\x18\0\0\0", "raw photograph of a camera"),
        (b"gimp xcf file\0", "a document of GIMP"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "a HEIF picture of an unknown codec"),
        (b"#?RADIANCE\n", "holds float32 values"),
        (b"Pf\n3 2\n-1\n", "holds float32 values"),
    ],
)
def test_other_pictures_are_named(head: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        measure(head, "a picture")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        b"\0\0\0\x08wide\0\0\1\0mdat",
        b"\0\xff\0\0mdat",
        b"RIFF\0\0\1\0AVI LIST",
        b"\x1a\x45\xdf\xa3\x01\0\0\0",
        b"FLV\1\5\0\0\0\x09",
        b"\0\0\1\xba\x44",
        (b"\x47" + bytes(187)) * 3,
        (bytes(4) + b"\x47" + bytes(187)) * 3,
        b"OggS\0\2",
    ],
)
def test_videos(head: bytes) -> None:
    found = recognise(head)
    assert found is not None
    assert found.film
    with pytest.raises(InputError, match="is a video, not a picture; give it by itself"):
        measure(head, "a picture")


@given(st.binary(max_size=600) | st.text(max_size=200).map(str.encode))
@example(b"")
@example(b"\0\0\0\x01ftyp")
def test_anything_is_told_without_an_error(head: bytes) -> None:
    found = recognise(head)
    assert (
        found is None
        or found.film
        or found.refused
        or found.format
        in set(FORMATS.values())
        | {
            *("PAM", "Sun raster", "HEIC"),
        }
    )


@pytest.mark.parametrize(
    "text",
    [
        b"BM is short for bitmap, as everybody knows by now",
        b"P1 is a priority",
        b"P5: see above",
        b"the wide river",
        b"get free beer here",
        b"GIF is a format",
        b"<?xml version='1.0'?><annotation><svgless/></annotation>",
        b"{}",
        b"%PDF-1.7",
        b"PK\3\4" + bytes(30),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"\0\0\0\x20ftypM4A \0\0\0\0M4A ",
        b"\x93NUMPY\1\0v\0",
    ],
)
def test_what_is_no_picture_is_not_taken_for_one(text: bytes) -> None:
    assert recognise(text) is None
