"""Result files: their names, that they are whole, and what happens when the disk is full."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeseg.errors import ResultPathError, StorageError, UnknownNameError, UsageError
from edgeseg.results import Result
from edgeseg.sources import Frame, Source, SourceKind, open_iterable
from edgeseg.writer import ResultWriter, VideoFile, _frames_in, class_index

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


posix = pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not have")
ODD_NAMES = [
    "..png",
    ".png",
    "...",
    ". .png",
    " ",
    "a\nb.png",
    "\x1b[2J\x9b\u202e.png",
    os.fsdecode(b"\xff\xfe.png"),
    "-r.png",
]


@posix
@pytest.mark.parametrize("name", [*ODD_NAMES, "a" * 251 + ".png", "\u50cf" * 83 + ".jpg", os.fsdecode(b"\xff" * 255)])
def test_any_file_name_has_its_result_inside_out(tmp_path: Path, name: str) -> None:
    out = tmp_path / "x" / "out"
    out.parent.mkdir()
    (out.parent / name).touch()  # a file can be called that
    with ResultWriter(out, FakeSource("image", name), ["labels", "overlay"]) as writer:
        written = writer.write(result(str(out.parent / name)))
    assert sorted(os.fsencode(path) for path in out.iterdir()) == sorted(map(os.fsencode, written))
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([name, "out"])
    assert all(path.parent == out and np.array_equal(read_odd(path), result("").labels) for path in written[:1])


def read_odd(path: Path) -> NDArray[np.uint8]:
    """A picture whose name OpenCV does not take."""
    return np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


@posix
def test_ordinary_and_odd_names_that_fit_are_kept(tmp_path: Path) -> None:
    names = ["größe 像素.jpg", "a\nb.jpg", " .jpg", os.fsdecode(b"\xff.jpg"), "a" * 243 + ".jpg"]
    with ResultWriter(tmp_path, FakeSource("folder", "in"), ["overlay"]) as writer:
        written = [writer.write(result(f"in/{name}"))[0].name for name in names]
    assert written == [f"{name.removesuffix('.jpg')}_overlay.png" for name in names]


_PARTS = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=300)


@posix
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(paths=[["..", "a.png"], ["..", "..", "a.png"], ["__", "a.png"], [".", "a.png"], ["..png"], ["..jpg"]])
@given(paths=st.lists(st.lists(_PARTS, min_size=1, max_size=3), min_size=1, max_size=8, unique_by="/".join))
def test_whatever_the_names_results_are_distinct_and_inside_out(
    paths: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("case") / "out"
    sources = {str(Path("in", *parts)) for parts in paths if parts[-1] not in (".", "..")}
    writer = ResultWriter(out, FakeSource("folder", "in"), ["labels"])
    written = [writer.write(result(source))[0] for source in sorted(sources)]
    resolved = {path.resolve(strict=True) for path in written}
    assert len(resolved) == len(sources)
    assert all(path.is_relative_to(out.resolve()) for path in resolved)
    assert [path.name for path in out.parent.iterdir()] == (["out"] if sources else [])


def test_long_names_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    names = ["a" * 249 + ending for ending in ("b.png", "c.png", "b.jpg")] + [
        "a" * 249 + "/x.png",
        "a" * 250 + "/x.png",
    ]
    with ResultWriter(tmp_path, FakeSource("folder", "in"), ["labels"]) as writer:
        written = [writer.write(result(f"in/{name}"))[0] for name in names]
    assert len({path.relative_to(tmp_path) for path in written}) == len(files(tmp_path)) == 5
    assert all(path.relative_to(tmp_path).parts[0].startswith("a" * 200) for path in written)


def test_a_name_the_file_system_refuses_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg import writer as module

    def vfat(path: Path, data: bytes) -> None:
        if ":" in path.name:
            raise StorageError("cannot write") from OSError(22, "Invalid argument")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(module, "write_bytes", vfat)
    with ResultWriter(tmp_path, FakeSource("folder", "in"), ["labels", "color"]) as writer:
        written = [path.name for name in ("12:30.png", "12:31.png") for path in writer.write(result(f"in/{name}"))]
    assert sorted(written) == files(tmp_path)
    assert len(set(written)) == 4
    assert all(name.startswith("picture_") for name in written)


def test_what_stands_in_the_way_is_the_failure_of_one_picture(tmp_path: Path) -> None:
    (tmp_path / "a_labels.png").mkdir()
    (tmp_path / "sub").write_text("a file")
    with ResultWriter(tmp_path, FakeSource("folder", "in"), ["labels"]) as writer:
        for name in ("a.png", "sub/b.png", "sub/sub/b.png"):
            with pytest.raises(ResultPathError, match="cannot write"):
                writer.write(result(f"in/{name}"))
        writer.write(result("in/b.png"))
    assert files(tmp_path) == ["b_labels.png", "sub"]


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


@posix
@pytest.mark.parametrize("name", [*ODD_NAMES[:-1], "a:b.mp4", "a%03d.mp4", "\u50cf" * 83 + ".mp4", "x" * 251 + ".mp4"])
def test_videos_of_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with ResultWriter(Path(), FakeSource("video", name), ["overlay", "labels"]) as writer:
        video, picture = writer.write(result(f"{name}#0"))
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert picture.is_file()
    assert (video.parent, picture.parent.parent) == (Path(), Path())
    video.rename("renamed.mp4")
    assert frame_count(Path("renamed.mp4")) == 1
    Path("renamed.mp4").rename(".a:b.mp4")  # which FFmpeg takes for a URL
    assert _frames_in(Path(".a:b.mp4")) == 1


@posix
def test_videos_in_a_folder_of_any_name(tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"\xff")
    with ResultWriter(out, FakeSource("rtsp", "rtsp://" + "像" * 300), ["color"]) as writer:
        (video,) = writer.write(result("#0"))
    assert video.parent == out
    assert list(out.iterdir()) == [video]


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
    with pytest.raises(StorageError, match="cannot write") as caught:
        ResultWriter(tmp_path / "out", FakeSource("image", "a.png"), ["labels"]).write(result("a.png"))
    assert not isinstance(caught.value, ResultPathError)  # no picture could be written
    with pytest.raises(StorageError, match="cannot write"):
        VideoFile(tmp_path / "out" / "a.mp4", 10.0).write(np.zeros((48, 64, 3), np.uint8))


def test_items_of_an_iterable_with_names_of_their_own_are_counted(tmp_path: Path) -> None:
    source = open_iterable([tmp_path / "a.png", tmp_path / "b #1x.png"])
    with ResultWriter(tmp_path / "out", source, ("labels",)) as writer:
        written = [writer.write(result(path)) for path in ("a.png", "b #1x.png", "a.png", "7#12")]
    assert [files[0].name for files in written] == ["000000.png", "000001.png", "000000.png", "000012.png"]
