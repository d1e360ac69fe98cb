"""Sources that OpenCV captures: video files, cameras, network streams and GStreamer pipelines."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from edgeseg.credentials import without_credentials
from edgeseg.errors import InputError
from edgeseg.files import path_for_opencv
from edgeseg.images import as_rgb
from edgeseg.sources.containers import has_no_index, missing_end
from edgeseg.sources.frames import Frame, Source, SourceKind
from edgeseg.text import shown_name
from edgeseg.timing import ms_since

__all__ = ["open_camera", "open_gstreamer", "open_stream", "open_video"]

_LIVE_ELEMENTS = ("v4l2src", "nvarguscamerasrc", "nvv4l2camerasrc", "libcamerasrc", "rtspsrc", "udpsrc")
_OPEN_MS, _READ_MS = 10_000, 5_000


class _Video(Source):
    """A video file, camera, network stream or GStreamer pipeline, through OpenCV."""

    def __init__(
        self,
        kind: SourceKind,
        name: str,
        capture: cv2.VideoCapture,
        *,
        live: bool | None = None,
        file: Path | None = None,
    ) -> None:
        self.kind, self.name, self._capture, self._file = kind, name, capture, file
        self._lock = threading.Lock()
        self._closed = False
        self._count = 0
        self._first = self._read()
        frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.length = int(frames) if 0 < frames < 1e9 else None
        self.fps = float(fps) if 0 < fps < 1000 else None
        self.live = self.length is None if live is None else live
        self.patience = 2.0 if kind == "video" else 12.0
        if self._first is None:
            self.close()
            raise InputError(f"{_words(kind)} '{shown_name(name)}' gave no picture; check that it plays elsewhere")

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._take()) is not None:
            self._count += 1
            yield frame
        if self._closed:
            return
        if self.live:
            raise InputError(
                f"{_words(self.kind)} '{shown_name(self.name)}' stopped after {self._count} pictures; "
                "check the connection and start again"
            )
        if self._file is not None and (missing := missing_end(self._file, self._count, self.length)):
            text = f"video '{shown_name(self.name)}' {missing}"
            yield Frame(None, f"{self.name}#{self._count}", self._count, error=InputError(text))

    def _take(self) -> Frame | None:
        first, self._first = self._first, None
        return first or self._read()

    def _read(self) -> Frame | None:
        start = time.perf_counter()
        with self._lock:  # OpenCV must not be released while it reads
            done, picture = (False, None) if self._closed else self._capture.read()
        if not done or picture is None:
            return None
        return Frame(as_rgb(picture, "bgr"), f"{self.name}#{self._count}", self._count, ms_since(start))

    def close(self) -> None:
        """Free the file or device."""
        with self._lock:
            self._closed = True
            self._capture.release()


def open_video(path: Path) -> Source:
    """Open a video file.

    Raises:
        InputError: It cannot be opened, or gives no picture.
    """
    name = str(path)
    with path_for_opencv(path) as opened:
        try:
            capture = _capture(opened, "video", name)
        except InputError:
            if has_no_index(path):
                raise InputError(
                    f"video '{shown_name(name)}' cannot be opened: it has no index (moov box), so it is cut off or was "
                    "not finished; get it whole"
                ) from None
            raise
        return _Video("video", name, capture, live=False, file=path)


def open_camera(index: int, asked: str = "") -> Source:
    """Open a camera.

    Args:
        index: Its number.
        asked: What the user wrote where that may have been meant as a path.

    Raises:
        InputError: It cannot be opened, or gives no picture.
    """
    name = f"camera:{index}"
    try:
        return _Video("camera", name, _capture(index, "camera", name), live=True)
    except InputError as error:
        if not asked:
            raise
        raise InputError(
            f"there is no file or folder '{asked}' here, and {str(error).partition(';')[0]}; "
            "check the path, or that the camera is connected"
        ) from error


def open_stream(address: str) -> Source:
    """Open an address of the network.

    Raises:
        InputError: It cannot be opened, or gives no picture.
    """
    live = True if address.lower().startswith("rtsp") else None
    name = without_credentials(address)  # names are printed and stored; passwords must not be
    return _Video("rtsp", name, _capture(address, "stream", name, timeouts=True), live=live)


def open_gstreamer(spec: str) -> Source:
    """Open ``gst:`` and a pipeline.

    Raises:
        InputError: OpenCV was built without GStreamer, or the pipeline cannot be opened or gives no picture.
    """
    if cv2.CAP_GSTREAMER not in cv2.videoio_registry.getBackends() or not _built_with_gstreamer():
        raise InputError("this OpenCV was built without GStreamer, which 'gst:' needs; use the system's OpenCV instead")
    pipeline = spec[len("gst:") :].strip()
    live = any(element in pipeline for element in _LIVE_ELEMENTS)
    name = without_credentials(spec)
    return _Video("camera", name, _capture(pipeline, "pipeline", name, api=cv2.CAP_GSTREAMER), live=live)


def _built_with_gstreamer() -> bool:
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def _capture(
    what: str | int, kind: str, name: str, *, api: int = cv2.CAP_ANY, timeouts: bool = False
) -> cv2.VideoCapture:
    """Open with OpenCV. Network streams get time limits where OpenCV has FFmpeg, which observes them."""
    if timeouts and cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends():
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS]
        capture = cv2.VideoCapture(str(what), cv2.CAP_FFMPEG, limits)
    else:
        capture = cv2.VideoCapture(what, api)
    if not capture.isOpened():
        capture.release()
        raise InputError(f"{kind} '{shown_name(name)}' cannot be opened; check that it is there and plays elsewhere")
    return capture


def _words(kind: SourceKind) -> str:
    return "stream" if kind == "rtsp" else kind
