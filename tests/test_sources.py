"""Sources: what opens as what, the order of folders, broken pictures and videos, and sentences for what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg import sources
from edgeseg.errors import InputError, UsageError
from edgeseg.sources import Frame, list_images, open_iterable, open_source, pictures_at


def flat(value: int, size: tuple[int, int] = (16, 24)) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, np.uint8)


def write_image(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), flat(value))
    return path


def write_video(path: Path, frames: int = 5, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10.0, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    for index in range(frames):
        picture = flat(0, (48, 64))
        picture[...] = (40 * index % 250, 0, 250 - 40 * index % 250)  # BGR: blue rises, red falls
        writer.write(picture)
    writer.release()
    return path


class FakeCapture:
    """Stands in for cv2.VideoCapture: gives `count` pictures, then nothing."""

    def __init__(self, count: int, length: float = -1.0, fps: float = 30.0) -> None:
        self.left, self.released = count, 0
        self.properties = {cv2.CAP_PROP_FRAME_COUNT: length, cv2.CAP_PROP_FPS: fps}

    def isOpened(self) -> bool:
        return True

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.left -= 1
        return (True, flat(7)) if self.left >= 0 else (False, None)

    def get(self, which: int) -> float:
        return self.properties.get(which, 0.0)

    def release(self) -> None:
        self.released += 1


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
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match="neither an image nor a video"):
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
    monkeypatch.setattr(sources, "_built_with_gstreamer", lambda: True)
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
    assert "s@cr" not in str(caught.value)
    assert "cret" not in str(caught.value)


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
    monkeypatch.setattr(sources, "_built_with_gstreamer", lambda: False)
    with pytest.raises(InputError, match="without GStreamer"):
        open_source("gst:videotestsrc ! appsink")


@pytest.mark.parametrize(("pipeline", "live"), [("nvarguscamerasrc ! appsink", True), ("filesrc ! appsink", False)])
def test_gstreamer(pipeline: str, live: bool, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_built_with_gstreamer", lambda: True)
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
