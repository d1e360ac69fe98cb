"""Result files: their names, that they are whole, and what happens when the disk is full."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import StorageError, UnknownNameError, UsageError
from edgeseg.results import Result
from edgeseg.sources import Frame, Source, SourceKind
from edgeseg.writer import ResultWriter, VideoFile, class_index

SIZE = (48, 64)


class FakeSource(Source):
    def __init__(self, kind: SourceKind, name: str, *, live: bool = False, fps: float | None = None) -> None:
        self.kind, self.name, self.live, self.fps = kind, name, live, fps

    def __iter__(self) -> Iterator[Frame]:
        return iter(())


def result(source: str, *, label: int = 1, scores: bool = False) -> Result:
    labels = np.zeros(SIZE, np.uint8)
    labels[:10] = label
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0] = 200  # red
    sure = np.full(SIZE, 0.5, np.float32) if scores else None
    return Result(labels, ("back", "front"), ((0, 0, 0), (0, 0, 255)), image, sure, {}, source)


def read(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return np.asarray(picture, np.uint8)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def frame_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def test_every_kind_of_an_image(tmp_path: Path) -> None:
    kinds = ("overlay", "color", "labels", "cutout", "scores")
    with ResultWriter(tmp_path / "out", FakeSource("image", "in/a.jpg"), kinds, opacity=1.0, cut=1) as writer:
        written = writer.write(result("in/a.jpg", scores=True))
    assert [path.name for path in written] == [f"a_{kind}.png" for kind in kinds]
    overlay, color, labels, cutout, scores = (read(path) for path in written)
    assert overlay[0, 0].tolist() == [255, 0, 0]  # BGR of the blue class
    assert color[0, 0].tolist() == [255, 0, 0]
    assert np.array_equal(labels, result("").labels)
    assert cutout[0, 0].tolist() == [0, 0, 200, 255]
    assert cutout[20, 0].tolist() == [0, 0, 200, 0]
    assert np.all(scores == 128)


def test_equal_stems_and_subfolders_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ["a.jpg", "a.png", "A.PNG", "a_png.jpg", "sub/a.jpg"]
    with ResultWriter(out, FakeSource("folder", "in"), ["labels"]) as writer:
        written = [path for name in names for path in writer.write(result(f"in/{name}"))]
    assert len({str(path).casefold() for path in written}) == 5
    assert written[0] == out / "a_labels.png"
    assert written[1] == out / "a_png_labels.png"
    assert written[4] == out / "sub" / "a_labels.png"
    assert len(files(out)) == 5


def test_cutout_of_another_class(tmp_path: Path) -> None:
    (path,) = ResultWriter(tmp_path, FakeSource("image", "a.png"), ["cutout"], cut=0).write(result("a.png"))
    assert read(path)[0, 0, 3] == 0
    assert read(path)[20, 0, 3] == 255


def test_class_index() -> None:
    names = ("back", "front")
    assert [class_index(word, names) for word in ("back", "front", "0", "1")] == [0, 1, 0, 1]
    for word in ("2", "frnt", "-1", ""):
        with pytest.raises(UnknownNameError, match="unknown class"):
            class_index(word, names)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'overlay'"):
        ResultWriter(tmp_path, FakeSource("image", "a.png"), ["overlai"])
    with pytest.raises(UsageError, match="choose another"):
        ResultWriter(tmp_path / "x" / "..", FakeSource("folder", str(tmp_path)), ["labels"])
    with pytest.raises(UsageError, match="scores=True"):
        ResultWriter(tmp_path, FakeSource("image", "a.png"), ["scores"]).write(result("a.png"))


def test_video_becomes_mp4_and_numbered_pictures(tmp_path: Path) -> None:
    source = FakeSource("video", "in/clip.avi", fps=10.0)
    mp4, png = tmp_path / "clip_overlay.mp4", tmp_path / "clip_labels" / "000003.png"
    with ResultWriter(tmp_path, source, ["overlay", "labels"]) as writer:
        for index in range(4):
            files_of_frame = writer.write(result(f"in/clip.avi#{index}"))
            assert files_of_frame == [mp4, png.with_name(f"{index:06d}.png")]
            assert not mp4.exists()
    assert files(tmp_path) == ["clip_labels/" + f"{index:06d}.png" for index in range(4)] + ["clip_overlay.mp4"]
    assert frame_count(mp4) == 4
    assert stat.S_IMODE(mp4.stat().st_mode) == 0o644


@pytest.mark.parametrize(("name", "stem"), [("camera:0", "camera_0"), ("rtsp://host:554/a/b", "rtsp_host_554_a_b")])
def test_names_of_cameras(tmp_path: Path, name: str, stem: str) -> None:
    kind: SourceKind = "camera" if name.startswith("camera") else "rtsp"
    with ResultWriter(tmp_path, FakeSource(kind, name, live=True), ["overlay"]) as writer:
        writer.write(result(f"{name}#0"))
    assert files(tmp_path) == [f"{stem}_overlay.mp4"]


@pytest.mark.parametrize(
    ("error", "live", "kept"),
    [(KeyboardInterrupt, True, True), (KeyboardInterrupt, False, False), (StorageError, True, False)],
)
def test_an_interrupted_video_is_kept_only_if_live(
    tmp_path: Path, error: type[BaseException], live: bool, kept: bool
) -> None:
    writer = ResultWriter(tmp_path, FakeSource("camera", "camera:0", live=live), ["color"])
    writer.write(result("camera:0#0"))
    writer.__exit__(error, error(), None)
    assert files(tmp_path) == (["camera_0_color.mp4"] if kept else [])


def test_pictures_of_another_size_are_brought_to_the_first(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", 10.0)
    video.write(np.zeros((48, 64, 3), np.uint8))
    video.write(np.zeros((96, 64, 3), np.uint8))
    video.finish()
    assert frame_count(tmp_path / "a.mp4") == 2


def test_live_videos_run_as_long_as_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("edgeseg.writer.time.monotonic", lambda: now[0])
    video = VideoFile(tmp_path / "a.mp4", 10.0, paced=True)
    for seconds in (0.0, 0.5, 1.0):
        now[0] = 100.0 + seconds
        video.write(np.zeros((48, 64, 3), np.uint8))
    video.finish()
    assert frame_count(tmp_path / "a.mp4") == 10


def test_video_that_was_not_stored_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = VideoFile(tmp_path / "a.mp4", 10.0)
    video.write(np.zeros((48, 64, 3), np.uint8))
    monkeypatch.setattr("edgeseg.writer._frames_in", lambda _: 0)
    with pytest.raises(StorageError, match=r"0 of 1 frames were stored.*disk"):
        video.finish()
    video.discard()
    assert files(tmp_path) == []


def test_full_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are POSIX")
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    video = VideoFile(tmp_path / "a.mp4", 10.0)
    writer = ResultWriter(tmp_path, FakeSource("image", "a.png"), ["labels"])
    big = Result(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), ("a",), ((0, 0, 0),), source="a.png")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            writer.write(big)
        for _ in range(20):
            video.write(noise)
        with pytest.raises(StorageError, match="free space"):
            video.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        video.discard()
    assert files(tmp_path) == []


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        ResultWriter(tmp_path / "out", FakeSource("image", "a.png"), ["labels"]).write(result("a.png"))
    with pytest.raises(StorageError, match="cannot write"):
        VideoFile(tmp_path / "out" / "a.mp4", 10.0).write(np.zeros((48, 64, 3), np.uint8))
