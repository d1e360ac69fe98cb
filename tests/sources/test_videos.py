"""Videos: their frames, and whether the end is missing, by container."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeseg.errors import InputError
from edgeseg.sources import open_source
from edgeseg.sources.containers import has_no_index, missing_end
from tests.sources.files import FakeCapture, write_video


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_video(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 5, codec)
    with open_source(path) as source:
        assert (source.kind, source.length, source.live, source.fps) == ("video", 5, False, 10.0)
        frames = list(source)
    assert [frame.name for frame in frames] == [f"{path}#{index}" for index in range(5)]
    assert all(frame.image is not None and frame.image.shape == (48, 64, 3) for frame in frames)
    red = [int(frame.image[24, 32, 0]) for frame in frames if frame.image is not None]
    assert red == sorted(red, reverse=True)
    assert red[0] > 240


def test_closed_video_gives_no_more(tmp_path: Path) -> None:
    source = open_source(write_video(tmp_path / "clip.avi"))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


def test_unreadable_video(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"not a video")
    with pytest.raises(InputError, match=r"video '.*clip.mp4' cannot be opened"):
        open_source(tmp_path / "clip.mp4")


def test_video_without_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.touch()
    capture = FakeCapture(0)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    with pytest.raises(InputError, match="gave no picture"):
        open_source(path)
    assert capture.released


def test_video_cut_off_gives_its_frames_and_then_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(6, length=100.0))
    *good, last = list(open_source(path))
    assert len(good) == 6
    assert all(frame.error is None for frame in good)
    assert "ends after 6 of 100 frames" in str(last.error)


def test_really_truncated_avi_gives_what_is_left(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = list(open_source(path))
    assert 1 <= sum(frame.error is None for frame in frames) < 40


def test_estimated_counts_are_not_held_against_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.webm"
    path.touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(6, length=100.0))
    assert all(frame.error is None for frame in open_source(path))


# --- trimmed and cut films ------------------------------------------------------------------------------------------


def noisy_film(path: Path, frames: int = 40, codec: str = "mp4v") -> bytes:
    """A film of 10 pictures a second with much in each of them."""
    write_video(path, frames, codec, noise=True)
    return path.read_bytes()


def play(path: Path, data: bytes) -> tuple[int, str]:
    """Count the frames of a film, and what is said at its end."""
    path.write_bytes(data)
    frames = list(open_source(path))
    errors = [str(frame.error) for frame in frames if frame.error is not None]
    assert len(errors) <= 1
    return len(frames) - len(errors), "".join(errors)


def box_at(data: bytes, kind: bytes) -> int:
    """First byte after a box's kind."""
    return data.index(kind) + 4


def edited(data: bytes, start: int, length: int) -> bytes:
    """Play `length` frames (of 0.1 s) from frame `start`, as trimming without recoding writes it."""
    times, film, edit = (box_at(data, kind) for kind in (b"mdhd", b"mvhd", b"elst"))
    unit, second = struct.unpack_from(">I", data, times + 12)[0], struct.unpack_from(">I", data, film + 12)[0]
    changed = bytearray(data)
    struct.pack_into(">Ii", changed, edit + 8, length * second // 10, start * unit // 10)
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
@pytest.mark.parametrize(("start", "length"), [(20, 20), (0, 12), (10, 5), (36, 4)])
def test_trimmed_films_are_whole(tmp_path: Path, suffix: str, start: int, length: int) -> None:
    whole = noisy_film(tmp_path / f"clip{suffix}")
    assert play(tmp_path / f"clip{suffix}", whole) == (40, "")
    count, said = play(tmp_path / f"clip{suffix}", edited(whole, start, length))
    assert said == ""
    assert length - 2 <= count <= length + 2


def test_a_trimmed_film_that_lost_frames_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(edited(noisy_film(path), 10, 30))
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(12, length=40.0))
    *_, last = open_source(path)
    assert "ends after 12 of 30 frames; it is cut off or damaged" in str(last.error)


def index_first(data: bytes) -> bytes:
    """Move the index before the frames, as for streaming."""
    mdat, moov = data.index(b"mdat") - 4, data.index(b"moov") - 4
    index = bytearray(data[moov:])
    places = box_at(data, b"stco") - moov
    count = struct.unpack_from(">I", index, places + 4)[0]
    for at in range(places + 8, places + 8 + 4 * count, 4):
        struct.pack_into(">I", index, at, struct.unpack_from(">I", index, at)[0] + len(index))
    return data[:mdat] + bytes(index) + data[mdat:moov]


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_films_that_are_cut_are_told(tmp_path: Path, share: float) -> None:
    path = tmp_path / "clip.mp4"
    whole = index_first(noisy_film(path))
    assert play(path, whole) == (40, "")
    count, said = play(path, whole[: int(len(whole) * share)])
    assert count < 40
    assert f"ends after {count} of 40 frames, where the file is cut off; get it whole" in said


def test_a_film_without_its_index_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    whole = noisy_film(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"has no index \(moov box\), so it is cut off or was not finished"):
        open_source(path)


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mkv", "MJPG")])
def test_other_containers_that_are_cut_are_told(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"clip{suffix}"
    whole = noisy_film(path, codec=codec)
    assert play(path, whole) == (40, "")
    count, said = play(path, whole[: len(whole) // 2])
    assert 10 <= count < 30
    assert "where the file is cut off" in said


def test_frames_of_no_bytes_are_not_missing(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    data = bytearray(noisy_film(path, codec="MJPG"))
    index = data.index(b"idx1")
    dropped = range(index + 8 + 16 * 10, index + 8 + 16 * 20, 16)
    for at in dropped:
        struct.pack_into("<I", data, at + 12, 0)
        place = data.index(b"movi") + struct.unpack_from("<I", data, at + 8)[0]
        size = struct.unpack_from("<I", data, place + 4)[0]
        struct.pack_into("<4sI", data, place, b"JUNK", size)
    count, said = play(path, bytes(data))
    assert count < 36
    assert said == ""


def fragments(counts: list[int], *, track: int = 1) -> bytes:
    """Boxes of fragments, each of so many frames."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", 8 + len(body), kind) + body

    parts = []
    for count in counts:
        run = box(b"trun", bytes(4), struct.pack(">I", count))
        head = box(b"tfhd", bytes(4), struct.pack(">I", track))
        parts.append(box(b"moof", box(b"traf", head, run)) + box(b"mdat", bytes(9)))
    return b"".join(parts)


def test_fragments_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    whole = noisy_film(path) + fragments([10, 20]) + fragments([500], track=2)
    for end, cut in ((len(whole), False), (len(whole) - 3, True)):
        path.write_bytes(whole[:end])
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(69, length=40.0))
        *_, last = open_source(path)
        assert (last.error is not None) == cut
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(50, length=40.0))
    path.write_bytes(whole)
    *_, last = open_source(path)
    assert "ends after 50 of 70 frames" in str(last.error)


def test_what_stands_behind_a_film_does_not_make_it_cut(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    assert play(path, noisy_film(path) + b"\0\0\xff\xffnotes that a program put behind the film") == (40, "")


def in_table(data: bytes, old: bytes, new: bytes) -> bytes:
    """Put other bytes into the table of frames, and make the boxes around it fit."""
    grown = data.replace(old, new)
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        at = grown.index(kind) - 4
        size = struct.unpack_from(">I", grown, at)[0] + len(new) - len(old)
        grown = grown[:at] + struct.pack(">I", size) + grown[at + 4 :]
    return grown


def test_frames_of_uneven_length_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    whole = noisy_film(path)
    unit = struct.unpack_from(">I", whole, box_at(whole, b"mdhd") + 12)[0] // 10
    one_rate = whole[box_at(whole, b"stts") - 8 :][:24]
    assert one_rate[4:8] == b"stts"
    rows = struct.pack(">IIIII", 2, 10, unit, 30, 3 * unit)  # ten frames of 0.1 s, thirty of 0.3 s
    uneven = in_table(whole, one_rate, struct.pack(">I4sI", 32, b"stts", 0) + rows)
    path.write_bytes(edited(uneven, 0, 40))  # four of its ten seconds
    assert missing_end(path, 20, 40) == ""
    assert "ends after 15 of 20 frames" in missing_end(path, 15, 40)


def test_frames_that_are_shown_later_than_decoded_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    whole = noisy_film(path)
    unit = struct.unpack_from(">I", whole, box_at(whole, b"mdhd") + 12)[0] // 10
    rates = whole[box_at(whole, b"stts") - 8 :][:24]
    shifts = struct.pack(">I4sIIII", 24, b"ctts", 0, 1, 40, 5 * unit)
    path.write_bytes(edited(in_table(whole, rates, rates + shifts), 15, 40))  # decoded from frame 10 on
    assert missing_end(path, 30, 40) == ""
    assert "ends after 20 of 30 frames" in missing_end(path, 20, 40)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("films")
    return [
        noisy_film(folder / "clip.mp4", 6) + fragments([3, 4]),
        noisy_film(folder / "clip.avi", 6, "MJPG"),
        noisy_film(folder / "clip.mkv", 6, "MJPG"),
    ]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_container_is_too_odd(films: list[bytes], tmp_path: Path, data: st.DataObject) -> None:
    changed = bytearray(films[data.draw(st.integers(0, 2))])
    moov = max(0, changed.find(b"moov"))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, 200) | st.integers(moov, len(changed) - 1))
        changed[at : at + 4] = data.draw(
            st.sampled_from([b"\xff" * 4, bytes(4), b"\0\0\0\1", b"moov", b"\x7f\xff\xff\xff"])
        )
    path = tmp_path / "clip.mp4"
    path.write_bytes(changed[: data.draw(st.integers(0, len(changed)))])
    said = missing_end(path, 6, 6)
    assert said == "" or said.startswith("ends after 6 ")
    assert isinstance(has_no_index(path), bool)


def test_boxes_within_boxes_end(tmp_path: Path) -> None:
    deep = b""
    for _ in range(3000):
        deep = struct.pack(">I4s", 8 + len(deep), b"mdia") + deep
    (tmp_path / "clip.mp4").write_bytes(struct.pack(">I4sI4s", 16 + len(deep), b"moov", 8 + len(deep), b"trak") + deep)
    assert missing_end(tmp_path / "clip.mp4", 6, None) == ""
