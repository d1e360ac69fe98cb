"""Sources: what opens as what, the order of folders, broken pictures and videos, and sentences for what cannot be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import InputError, UsageError
from edgeseg.sources import Frame, captures, list_images, open_iterable, open_source, pictures_at
from edgeseg.sources.patterns import numbered_files
from tests.pictures import Image, encoded
from tests.sources.files import FakeCapture, flat, write_image


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sources asked OpenCV to open; every answer is a camera of three pictures."""
    calls: list[Any] = []

    def open_capture(*arguments: object) -> FakeCapture:
        calls.append(arguments)
        return FakeCapture(3)

    monkeypatch.setattr(cv2, "VideoCapture", open_capture)
    return calls


def test_image(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", 100)
    with open_source(path) as source:
        (frame,) = source
    assert (source.kind, source.length, source.live, source.fps) == ("image", 1, False, None)
    assert frame.image is not None
    assert frame.image.shape == (16, 24, 3)
    assert frame.name == str(path)
    assert frame.error is None
    assert frame.decode_ms > 0


def test_folder_in_natural_order_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name in ("10.png", "2.JPG", "b1.png", "B2.png", ".hidden.png", "sub/3.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(str(tmp_path))
    assert source.kind == "folder"
    assert source.length == 4
    assert [Path(frame.name).name for frame in source] == ["2.JPG", "10.png", "b1.png", "B2.png"]


def test_folder_recursive(tmp_path: Path) -> None:
    for name in ("z.png", "seq10/1.png", "seq9/1.png", ".git/1.png"):
        write_image(tmp_path / name)
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path, recursive=True)]
    assert found == ["seq9/1.png", "seq10/1.png", "z.png"]
    assert len(list(open_source(tmp_path, recursive=True))) == 3


def test_empty_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "sub" / "1.png")
    with pytest.raises(InputError, match=r"holds no images.*--recursive"):
        open_source(tmp_path)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture, folder or video at"):
        open_source(tmp_path / "nothing.png")


def test_neither_image_nor_video(tmp_path: Path) -> None:
    for name, words in (
        ("notes.txt", "its first line, 'no picture', names no file"),
        ("notes.md", r"list of paths \(.txt\)"),
    ):
        (tmp_path / name).write_text("no picture")
        with pytest.raises(InputError, match=f"neither an image nor a video.*{words}"):
            open_source(tmp_path / name)
    for content in (b"", b"\0\1\2"):
        (tmp_path / "notes.txt").write_bytes(content)
        with pytest.raises(InputError, match="neither an image"):
            open_source(tmp_path / "notes.txt")


def test_image_of_another_suffix_opens_by_its_content(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png").rename(tmp_path / "a.data")
    (frame,) = open_source(tmp_path / "a.data")
    assert frame.image is not None


def test_broken_image_among_good_ones_is_a_frame_with_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"not a picture")
    (tmp_path / "3.png").symlink_to(tmp_path / "gone.png")
    write_image(tmp_path / "4.png")
    frames = list(open_source(tmp_path))
    assert [frame.image is not None for frame in frames] == [True, False, False, True]
    assert [isinstance(frame.error, InputError) for frame in frames] == [False, True, True, False]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]


@pytest.mark.parametrize("spec", [2, "2", "camera:2", "/dev/video2"])
def test_camera(spec: str | int, asked: list[Any]) -> None:
    source = open_source(spec)
    assert asked[0][0] == 2
    assert (source.kind, source.name, source.live, source.length) == ("camera", "camera:2", True, None)


def test_camera_that_stops_raises_after_its_pictures(asked: list[Any]) -> None:
    frames = iter(open_source(0))
    assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"camera 'camera:0' stopped after 3 pictures"):
        next(frames)


def test_path_object_is_never_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(Path("0") / "1.png")
    assert open_source(Path("0")).kind == "folder"
    assert open_source("./0").kind == "folder"


def test_rtsp_is_live_and_hides_the_password(asked: list[Any]) -> None:
    source = open_source("rtsp://user:secret@host:554/live")
    assert asked[0][0] == "rtsp://user:secret@host:554/live"
    assert (source.kind, source.live, source.name) == ("rtsp", True, "rtsp://host:554/live")
    assert next(iter(source)).name == "rtsp://host:554/live#0"


SECRET_STREAMS = (
    "rtsp://user:s@cr/et@host:554/live",
    "rtsp://user:x?s@cr#et@host:554/live",
    "http://host/live?channel=1&token=s@cr",
    "gst:rtspsrc location=rtsp://user:s@cr/et@host ! appsink",
    'gst:rtspsrc location=rtsp://host user-id=user user-pw="s@cr et" ! appsink',
)


@pytest.mark.parametrize("spec", SECRET_STREAMS)
def test_no_name_or_error_holds_a_password(spec: str, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_built_with_gstreamer", lambda: True)
    source = open_source(spec)
    assert asked[0][0] == spec.removeprefix("gst:")  # the camera still gets it
    assert "host" in source.name
    said = [source.name]
    with pytest.raises(InputError) as caught:
        said += [frame.name for frame in iter(source)]
    said.append(str(caught.value))
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(0))
    with pytest.raises(InputError, match="gave no picture") as caught:
        open_source(spec)
    said.append(str(caught.value))
    assert not [text for text in said if "s@cr" in text or "cr/et" in text or "cr#et" in text or "user:" in text]


@pytest.mark.parametrize("spec", ["rtmp://user:s@cret@host/live", "rtsp:user:s@cret@host", "user:s@cret@host/live"])
def test_addresses_that_are_none_are_named_without_a_password(spec: str) -> None:
    with pytest.raises(InputError, match=r"no picture, folder or video at '[^']*host") as caught:
        open_source(spec)
    said = [str(caught.value)]
    said += [f"{frame.name} {frame.error}" for frame in open_source([spec, "gone.png"])]
    assert not [text for text in said if "s@cr" in text or "cret" in text]


def test_pictures_named_by_an_address_are_named_without_a_password() -> None:
    (frame,) = open_iterable(["https://user:s@cret@host/a.png"])
    assert frame.name == "https://host/a.png"
    assert frame.error is not None
    assert "cret" not in str(frame.error)


def test_http_without_a_length_is_live(asked: list[Any]) -> None:
    assert open_source("http://host/mjpeg").live


def test_unreachable_stream_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"stream 'rtsp://127.0.0.1:9/none' cannot be opened"):
        open_source("rtsp://127.0.0.1:9/none")


def test_gstreamer_without_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_built_with_gstreamer", lambda: False)
    with pytest.raises(InputError, match="without GStreamer"):
        open_source("gst:videotestsrc ! appsink")


@pytest.mark.parametrize(("pipeline", "live"), [("nvarguscamerasrc ! appsink", True), ("filesrc ! appsink", False)])
def test_gstreamer(pipeline: str, live: bool, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_built_with_gstreamer", lambda: True)
    source = open_source(f"gst:{pipeline}")
    assert asked == [(pipeline, cv2.CAP_GSTREAMER)]
    assert source.live == live


def test_iterable_of_arrays_paths_and_frames(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    given = Frame(flat(3), "mine", 7)
    array = flat(0)
    array[..., 0] = 200
    frames = list(open_iterable([array, path, str(tmp_path / "gone.png"), given], color="bgr"))
    assert [frame.name for frame in frames] == ["0", str(path), str(tmp_path / "gone.png"), "mine"]
    assert frames[0].image is not None
    assert frames[0].image[0, 0].tolist() == [0, 0, 200]
    assert isinstance(frames[2].error, InputError)
    assert frames[3] is given


def test_iterable_copies_a_reused_buffer() -> None:
    buffer = flat(1)

    def camera() -> Iterator[NDArray[np.uint8]]:
        for value in (1, 2, 3):
            buffer[...] = value
            yield buffer

    frames = list(open_iterable(camera()))
    assert [int(frame.image[0, 0, 0]) for frame in frames if frame.image is not None] == [1, 2, 3]


def test_limits_and_damage_travel_with_the_frames(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (tmp_path / "1.jpg").write_bytes(data)
    write_image(tmp_path / "2.png")
    for opened in (open_source, lambda folder, **options: open_iterable(list_images(folder), **options)):
        first, second = opened(tmp_path)
        assert first.image is not None
        assert [len(frame.damaged) for frame in (first, second)] == [1, 0]
        first, second = opened(tmp_path, strict=True)
        assert "is damaged: part of the picture" in str(first.error)
        assert second.image is not None
        first, second = opened(tmp_path, max_pixels=16 * 24)
        assert "240x320, above 384 pixels" in str(first.error)
        assert second.image is not None
        with pytest.raises(UsageError, match="max_pixels is 0"):
            opened(tmp_path, max_pixels=0)


def test_one_array_is_one_picture_and_a_batch_is_many() -> None:
    assert open_iterable(flat(1)).length == 1
    assert open_iterable(np.zeros((4, 16, 24, 3), np.uint8)).length == 4


def test_array_that_is_no_picture_is_a_frame_with_an_error() -> None:
    (frame,) = open_iterable([np.zeros((4, 5, 7), np.uint8)])
    assert frame.error is not None


def test_pictures_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in pictures_at(tmp_path)] == ["a.JPG", "b.png"]
    assert pictures_at(tmp_path / "b.png") == [tmp_path / "b.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        pictures_at(tmp_path / "empty")
    with pytest.raises(InputError, match="no picture or folder"):
        pictures_at(tmp_path / "gone")


# --- an existing path comes first -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["0", "0001", "7", "frame_%04d.png", "a[1].png", "what?.png", " lead.png", "~x.png", "100%.png"]
)
def test_what_exists_comes_before_any_other_meaning(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith(".png"):
        write_image(tmp_path / name)
    else:
        write_image(tmp_path / name / "1.png")
    for spec in (name, Path(name), f"./{name}"):
        with open_source(spec) as source:
            assert source.kind == ("image" if name.endswith(".png") else "folder")
            assert [frame.error for frame in source] == [None]
    assert asked == []


def test_a_camera_is_always_one_where_its_number_is_an_int_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "2" / "1.png")
    assert [open_source(spec).kind for spec in (2, "camera:2", "/dev/video2")] == ["camera"] * 3
    assert open_source("0003").name == "camera:3"
    assert len(asked) == 4


def test_a_number_that_opens_nothing_names_both_meanings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: FakeCapture(0))
    with pytest.raises(InputError, match=r"no file or folder '0042' here, and camera 'camera:42' gave no picture"):
        open_source("0042")


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_image(tmp_path / "in" / "1.png")
    assert len(list(open_source("~/in"))) == 1
    assert len(list(open_source("~/in/*.png"))) == 1
    assert len(list(open_source(Path("~/in/%d.png")))) == 1


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png", b"  a  b .png", "ä 写.png".encode()])
def test_names_are_names(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    write_image(tmp_path / "plain.png").rename(path)
    for spec in (path, str(path), tmp_path, f"{tmp_path}/*.png"):
        (frame,) = open_source(spec)
        assert frame.error is None
        assert frame.name == str(path)
    (tmp_path / "list.txt").write_bytes(name if b"\n" not in name else b"*")
    if b"\n" not in name:
        (frame,) = open_source(tmp_path / "list.txt")
        assert frame.name == str(path)


# --- folders by content ----------------------------------------------------------------------------------------------


def test_a_folder_s_pictures_are_told_by_content(tmp_path: Path) -> None:
    jpeg, png, gif = (encoded(flat(9), kind) for kind in ("JPEG", "PNG", "GIF"))
    good = {
        "a.jfif": jpeg,
        "b.JPEG": jpeg,
        "c": jpeg,
        "d.gif": gif,
        "e.dat": png,
        "f.mp4": png,
        "g.avif": encoded(flat(9), "AVIF"),
    }
    failing = {
        **{"h.svg": b"<?xml version='1.0'?><svg width='3'/>", "i": b"8BPS\0\1" + bytes(30), "j.tga": bytes(60)},
        **{"k.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "l.png": b"no picture", "m.jpg": b""},
        **{"n.bin": b"PF\n3 2\n-1\n" + bytes(72), "o": b"\0\0\1\0\1\0\x10\x10\0\0\1\0" + bytes(60), "p.dng": b"II*\0"},
    }
    other = {
        "notes.txt": b"P1 is a priority",
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        "x.json": b"{}",
        "empty": b"",
        "BM.md": b"BM is not a bitmap",
    }
    for name, data in (
        good | failing | other | {"clip.bin": b"\0\0\0\x18ftypisom" + bytes(30), ".DS_Store": jpeg}
    ).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "odd.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "odd").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    source = open_source(tmp_path)
    frames = {Path(frame.name).name: frame.error for frame in source}
    assert sorted(name for name, error in frames.items() if error is None) == sorted(good)
    assert sorted(name for name, error in frames.items() if error is not None) == sorted([*failing, "odd.png"])
    assert all(name in str(error) for name, error in frames.items() if error is not None)
    assert source.notes == (
        "passed over: 7 files that are no pictures (BM.md, empty, notes.txt, and 4 more)",
        "passed over: 1 video (clip.bin); give each by itself",
    )
    assert [path.name for path in list_images(tmp_path)] == list(frames)


def test_a_folder_of_other_files_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(InputError, match=r"holds no images; .*1 file that is no picture \(a.txt\).*1 video \(b.mp4\)"):
        open_source(tmp_path)


def test_what_may_not_be_read_is_passed_over_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1.png", "sub/2.png", "shut/3.png"):
        write_image(tmp_path / name)
    (tmp_path / "locked").write_bytes(b"")
    scandir, real_open = os.scandir, open

    def refused(path: Any) -> PermissionError:
        return PermissionError(13, "Permission denied", os.fspath(path))

    def listing(path: Any) -> Any:
        if os.path.basename(path) in ("shut", "root"):
            raise refused(path)
        return scandir(path)

    def opening(path: Any, *rest: Any, **options: Any) -> Any:
        if os.path.basename(path) == "locked":
            raise refused(path)
        return real_open(path, *rest, **options)

    monkeypatch.setattr(os, "scandir", listing)
    monkeypatch.setattr("builtins.open", opening)
    source = open_source(tmp_path, recursive=True)
    assert [Path(frame.name).name for frame in source] == ["1.png", "2.png"]
    assert source.notes == (
        "passed over: 2 files or folders that cannot be read (shut: permission denied, locked: permission denied)",
    )
    (tmp_path / "root").mkdir()
    with pytest.raises(InputError, match=r"folder '.*root' cannot be read \(permission denied\)"):
        open_source(tmp_path / "root")
    with pytest.raises(InputError, match=r"locked' cannot be read \(permission denied\)"):
        open_source(tmp_path / "locked")
    assert [frame.error is None for frame in open_source([tmp_path / "1.png", tmp_path / "root"])] == [True, False]


def test_what_later_pages_hold_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(encoded(flat(9), "GIF", save_all=True, append_images=[Image.fromarray(flat(200))]))
    (frame,) = open_source(tmp_path)
    assert frame.notes == ("only the first of its pictures is taken",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_what_is_neither_a_file_nor_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    Path("broken").symlink_to("nowhere.png")
    Path("loop").symlink_to("loop")
    for spec, words in (
        ("pipe.png", "'pipe.png' is a named pipe, not a file or folder"),
        ("/dev/null", "'/dev/null' is a device"),
        ("broken", "'broken' is a link to 'nowhere.png', where nothing is"),
        ("loop", "'loop' cannot be looked at .too many levels"),
        ("x" * 5000, "cannot be looked at .file name too long"),
        ("a\0b", "no picture, folder or video at"),
    ):
        with pytest.raises(InputError, match=words):
            open_source(spec)


# --- patterns, numbers, lists, several --------------------------------------------------------------------------------


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with ``frames/img_0001.png``, 2, 3, 7 and 12345, ``other/img_0001.jpg`` and a text."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3, 7, 12345):
        write_image(tmp_path / f"frames/img_{number:04d}.png")
    for name in ("frames/img_00008.png", "frames/img_9.png", "other/deep/img_0001.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "frames/notes.txt").write_text("no picture")
    return tmp_path


def names_of(spec: Any, **options: Any) -> list[str]:
    with open_source(spec, **options) as source:
        return [Path(frame.name).name for frame in source]


def test_shell_patterns(frames: Path) -> None:
    assert names_of("frames/img_000[1-2].png") == ["img_0001.png", "img_0002.png"]
    assert names_of("**/img_0001.*") == ["img_0001.png", "img_0001.jpg"]
    assert names_of(Path("other/**/*.jpg")) == ["img_0001.jpg"]
    assert len(names_of("fram*")) == 7
    assert len(names_of("*", recursive=True)) == 8
    source = open_source("frames/*")
    assert (source.kind, source.length) == ("files", 7)
    assert source.notes == ("passed over: 1 file that is no picture (frames/notes.txt)",)
    for pattern in ("frames/*.jpg", "gone/*.png", "frames/img_[x].png", "fram?/x"):
        with pytest.raises(InputError, match="no file matches the pattern"):
            open_source(pattern)


def test_numbers_in_a_pattern(frames: Path) -> None:
    source = open_source("frames/img_%04d.png")
    assert [Path(frame.name).stem for frame in source] == [f"img_{number:04d}" for number in (1, 2, 3, 7, 12345)]
    assert source.notes == ("12340 numbers are missing between 1 and 12345: 4 to 6, 8 to 12344",)
    assert names_of("frames/img_%d.png") == ["img_9.png", "img_12345.png"]
    assert open_source("frames/img_%i.png").notes
    write_image(frames / "100%_3.png")
    assert names_of("100%%_%d.png") == ["100%_3.png"]
    for pattern in ("frames/shot_%04d.png", "gone/img_%04d.png"):
        with pytest.raises(InputError, match="no file matches the pattern"):
            open_source(pattern)


@settings(max_examples=60, deadline=None)
@given(numbers=st.sets(st.integers(0, 120_000), min_size=1, max_size=12), wide=st.integers(1, 6))
def test_a_pattern_finds_what_printf_writes(numbers: set[int], wide: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            Path(folder, f"a_{number:0{wide}d}.png").touch()
        found, notes = numbered_files(f"{folder}/a_%0{wide}d.png")
        assert [path.name for path in found] == [f"a_{number:0{wide}d}.png" for number in sorted(numbers)]
        gaps = max(numbers) - min(numbers) + 1 - len(numbers)
        assert bool(notes) == bool(gaps)
        assert not notes or notes[0].startswith(f"{gaps} number")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_list_files(frames: Path, mark: bytes, end: bytes) -> None:
    lines = [
        b"# a comment",
        b"img_0002.png",
        b"",
        b"  img_0001.png ",
        b"gone.png",
        b"frames/img_0003.png",
        b"..\\other\\deep",
        b"#7.png",
    ]
    write_image(frames / "frames/#7.png")
    (frames / "frames/list.txt").write_bytes(mark + end.join(lines))
    source = open_source("frames/list.txt")
    found = list(source)
    expected = ["img_0002.png", "img_0001.png", "gone.png", "img_0003.png", "img_0001.jpg", "#7.png"]
    assert [Path(frame.name).name for frame in found] == expected
    assert [frame.error is None for frame in found] == [True, True, False, True, True, True]
    assert "gone.png" in str(found[2].error)
    assert source.root == frames


def test_a_list_in_utf_16(frames: Path) -> None:
    (frames / "list.txt").write_text("frames/img_0001.png\r\n", encoding="utf-16")
    assert names_of("list.txt") == ["img_0001.png"]


def test_a_list_names_videos_and_texts_as_failures(frames: Path) -> None:
    (frames / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(30))
    (frames / "list.lst").write_text("clip.mp4\nframes/notes.txt\nframes/img_0001.png\n")
    video, text, picture = open_source("list.lst")
    assert "is a video, not a picture; give it by itself" in str(video.error)
    assert "notes.txt" in str(text.error)
    assert picture.error is None


def test_several_sources(frames: Path) -> None:
    source = open_source(
        ["frames/img_0001.png", "other/deep", Path("frames/img_%04d.png"), "gone.png", "frames/notes.txt"]
    )
    found = list(source)
    assert [Path(frame.name).name for frame in found[:2]] == ["img_0001.png", "img_0001.jpg"]
    assert len(found) == 8
    assert [frame.name for frame in found if frame.error is not None] == ["gone.png"]
    assert source.root == frames
    assert source.notes[-1] == "passed over: 1 file that is no picture (frames/notes.txt)"
    assert open_source(["frames"]).kind == "folder"
    (frames / "list.txt").write_text("frames/img_0002.png\n")
    assert names_of(["list.txt", "frames/img_0001.png"]) == ["img_0002.png", "img_0001.png"]


def test_one_of_several_sources_that_has_no_pictures_fails_by_itself(frames: Path) -> None:
    (frames / "empty").mkdir()
    (frames / "broken").symlink_to("nowhere.png")
    source = open_source(["gone.png", "empty", "broken", "gone/*.png", "frames/img_0001.png"])
    assert source.root == frames / "frames"
    *failed, good = source
    assert good.error is None
    for frame, words in zip(
        failed,
        ("no picture, folder or video at 'gone.png'", "folder 'empty' holds no images", "is a link", "no file matches"),
        strict=True,
    ):
        assert words in str(frame.error)
    assert open_source("*").notes[0] == "folder 'empty' holds no images"


@pytest.mark.parametrize(
    "spec", ["0", "camera:0", "rtsp://user:s@cr@host/live", "gst:videotestsrc ! appsink", "clip.mp4"]
)
def test_a_stream_is_the_only_source(frames: Path, spec: str, asked: list[Any]) -> None:
    (frames / "clip.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(30))
    with pytest.raises(UsageError, match="which must be the only source") as caught:
        open_source(["frames", spec])
    assert "s@cr" not in str(caught.value)
    assert asked == []


def test_no_source_at_all(frames: Path) -> None:
    with pytest.raises(UsageError, match="no source is given"):
        open_source([])
    with pytest.raises(InputError, match="names no pictures"):
        open_source(["frames/notes.txt", "frames/notes.txt"])
