"""Open whatever a user names: a path that exists comes before every other meaning of the same words."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from edgeseg.credentials import without_credentials
from edgeseg.errors import InputError, UsageError
from edgeseg.images import MAX_PIXELS
from edgeseg.sources.captures import open_camera, open_gstreamer, open_stream, open_video
from edgeseg.sources.content import IMAGE_SUFFIXES, VIDEO_SUFFIXES, content_of, found_at, head_of, unusual_file
from edgeseg.sources.folders import Listing, pictures_of, scan
from edgeseg.sources.frames import Reading, Source
from edgeseg.sources.list_files import LIST_SUFFIXES, listed_paths
from edgeseg.sources.patterns import matches_of, numbered_files
from edgeseg.sources.pictures import Pictures
from edgeseg.stacks import STACK_SUFFIXES
from edgeseg.text import os_reason, shown_name

__all__ = ["open_source"]

_ADDRESS = re.compile(r"(?:rtsps?|https?)://|gst:|camera:\d+$|/dev/video\d+$", re.IGNORECASE)


def open_source(
    spec: str | Path | int | Sequence[str | Path],
    *,
    recursive: bool = False,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    channels: int = 3,
) -> Source:
    """Open pictures, a video, a camera or a network stream.

    Args:
        spec: A path of an image, folder or video; a pattern (``frames/*.png``, ``**/*.jpg``, ``img_%04d.png``); a
            ``.txt`` file of one path a line; several of these but for videos, as a list; a camera as ``0``, ``"0"``,
            ``"camera:0"`` or ``"/dev/video0"``; an ``rtsp://`` or ``http(s)://`` address; or ``"gst:"`` and a GStreamer
            pipeline that ends in ``appsink`` and gives BGR. A path that exists comes first: where a folder is named
            ``0``, that is what ``"0"`` opens. ``~`` is the home folder where no such path exists.
        recursive: Also take the images of folders' subfolders.
        max_pixels: Largest height x width of a picture file; a larger one is that picture's failure.
        strict: Refuse damaged picture files, each as that picture's failure.
        channels: Of the pictures; other than 3, files are read as `edgeseg.stacks` does, there are no videos, and a
            text of paths with commas between them is a stack, one file per channel.

    Returns:
        The source; folders and shell patterns in natural order (``2.jpg`` before ``10.jpg``). `Source.notes` says what
        was passed over.

    Raises:
        InputError: Nothing there, no images in the folder, or a video or camera that gives no picture.
        UsageError: `max_pixels` is below 1, no source, or a video or stream among several sources.

    Example:
        >>> with open_source(folder / "images") as source:
        ...     print(source.kind, source.length)
        folder 1
        >>> with open_source([folder / "images", str(folder / "images" / "*.png")]) as source:
        ...     print(source.kind, source.length)
        files 2
    """
    opener = _Opener(Reading(max_pixels, strict, channels), recursive)
    if isinstance(spec, (str, Path, int)):
        return opener.open(spec)
    specs = list(spec)
    if not specs:
        raise UsageError("no source is given; give at least one image, folder, video or camera")
    return opener.open(specs[0]) if len(specs) == 1 else opener.open_several(specs)


class _Opener:
    """Opens what is named in words; keeps how files are read and whether subfolders are searched."""

    def __init__(self, reading: Reading, recursive: bool) -> None:
        self._reading, self._recursive = reading, recursive

    def open(self, spec: str | Path | int) -> Source:
        if self._reading.channels != 3:
            return self._open_files(os.fspath(spec) if isinstance(spec, Path) else str(spec))
        if isinstance(spec, int):
            return open_camera(spec)
        text = os.fspath(spec)
        if isinstance(spec, str) and (source := _open_address(text.strip())) is not None:
            return source
        if (path := _existing(text)) is not None:
            return self._open_path(path)
        if isinstance(spec, str) and re.fullmatch(r"\d{1,9}", text.strip()):
            return open_camera(int(text), asked=text.strip())
        return self._open_pattern(text)

    def _open_files(self, text: str) -> Source:
        """Open files of another number of channels than pictures have: a path, a pattern, a list or a stack."""
        if (path := _existing(text)) is not None:
            return self._open_path(path)
        stack = tuple(text.split(","))
        if len(stack) > 1 and not _ADDRESS.match(text.strip()):
            return Pictures("image", stack[0], [stack], self._reading, root=Path(stack[0]).parent)
        if _ADDRESS.match(text.strip()) or text.strip().isdecimal():
            raise self._no_film(text)
        return self._open_pattern(text)

    def _no_film(self, text: str) -> InputError:
        return InputError(
            f"'{shown_name(without_credentials(text))}' is no picture of {self._reading.channels} channels: give files "
            f"({' '.join(sorted(STACK_SUFFIXES))}), folders of them, or FILE,FILE,... with one file per channel, and "
            "no video or camera"
        )

    def _open_path(self, path: Path) -> Source:
        """Open an existing path."""
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            listing = self._pictures_of(path)
            notes = listing.passed_over()
            return Pictures("folder", str(path), listing.pictures, self._reading, root=path, notes=notes)
        head = _head(path, status)
        channels = self._reading.channels
        content = content_of(path, head, channels=channels)
        if channels != 3 and content != "picture" and content_of(path, head) != "other":
            raise self._no_film(str(path))
        if content == "video":
            return open_video(path)
        if content == "picture":
            return Pictures("image", str(path), [path], self._reading, root=path.parent)
        if path.suffix.lower() not in LIST_SUFFIXES:
            known = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise InputError(
                f"'{shown_name(path)}' is neither an image nor a video edgeseg reads, nor a list of paths (.txt); "
                f"it reads {known}"
            )
        listing = Listing(self._reading.channels)
        for entry in listed_paths(path):
            self._add_entry(listing, entry)
        return self._files(str(path), listing)

    def _open_pattern(self, text: str) -> Source:
        """Open what a pattern matches; words that are neither a path nor a pattern name nothing."""
        matches, notes = _matches(text)
        if len(matches) == 1 and found_at(matches[0]) is not None:
            return self._open_path(matches[0])
        listing = Listing(self._reading.channels, notes=notes)
        for match in matches:
            self._add_match(listing, match)
        return self._files(text, listing)

    def _pictures_of(self, folder: Path) -> Listing:
        channels = self._reading.channels
        return pictures_of(folder, recursive=self._recursive, deeper="--recursive", channels=channels)

    def open_several(self, specs: Sequence[str | Path]) -> Source:
        """Open files and folders together."""
        listing = Listing(self._reading.channels)
        for spec in specs:
            self._add_spec(listing, spec)
        return self._files(f"{len(specs)} sources", listing)

    def _add_spec(self, listing: Listing, spec: str | Path) -> None:
        """Add one of several sources; one without pictures stays, as a failure."""
        text = os.fspath(spec)
        try:
            path = _existing(text)
            if path is None and (_ADDRESS.match(text.strip()) or text.strip().isdecimal()):
                raise _alone(without_credentials(text))
            if path is None:
                matches, notes = _matches(text)
                listing.notes.extend(notes)
                for match in matches:
                    self._add_match(listing, match)
            elif path.suffix.lower() in LIST_SUFFIXES and os.path.isfile(path) and content_of(path) == "other":
                self._add_list(listing, path)
            elif os.path.isfile(path) and content_of(path) == "video":
                raise _alone(text)
            elif os.path.isdir(path):
                self._add_folder(listing, path, self._pictures_of(path))
            else:
                self._add_match(listing, path)
        except InputError as error:
            listing.fail(Path(_without_user(text)), error)
        except OSError as error:
            listing.fail(Path(_without_user(text)), _unreadable(Path(text), error))

    def _add_list(self, listing: Listing, path: Path) -> None:
        """Add what a list names; a text that is no list is passed over, as it is in a folder."""
        try:
            entries = listed_paths(path)
        except InputError:
            listing.others.append(str(path))
            return
        for entry in entries:
            self._add_entry(listing, entry)

    def _add_entry(self, listing: Listing, path: Path) -> None:
        """Add what a list names, whatever it is."""
        if os.path.isdir(path):
            self._add_match(listing, path)
        else:
            listing.pictures.append(path)

    def _add_match(self, listing: Listing, path: Path) -> None:
        """Add a file or folder that was matched."""
        if os.path.isdir(path):
            inside = scan(path, recursive=self._recursive, channels=self._reading.channels)
            if not inside.pictures:
                inside.notes.append(f"folder '{shown_name(path)}' holds no images")
            self._add_folder(listing, path, inside)
        elif os.path.isfile(path):
            listing.add(path, str(path))
        elif os.path.exists(path):
            listing.others.append(str(path))
        else:
            listing.pictures.append(path)

    def _add_folder(self, listing: Listing, path: Path, inside: Listing) -> None:
        """Add what was found in a folder, whose files are then named with it."""
        for names in (inside.others, inside.videos, inside.unreadable):
            names[:] = [os.path.join(path, name) for name in names]
        listing.extend(inside)

    def _files(self, name: str, listing: Listing) -> Source:
        notes = listing.passed_over()
        if not listing.pictures:
            told = "".join(f"; {note}" for note in notes)
            raise InputError(f"'{shown_name(name)}' names no pictures; give images or folders of images{told}")
        folders = {os.path.dirname(os.path.abspath(path)) for path in listing.pictures if path not in listing.failures}
        root = Path(os.path.commonpath(folders or [os.getcwd()]))
        return Pictures(
            "files", name, listing.pictures, self._reading, root=root, failures=listing.failures, notes=notes
        )


def _open_address(text: str) -> Source | None:
    """Open what can only be a camera or a stream."""
    if camera := re.fullmatch(r"(?:camera:|/dev/video)(\d{1,9})", text):
        return open_camera(int(camera[1]))
    if text.startswith("gst:"):
        return open_gstreamer(text)
    if re.match(r"(rtsps?|https?)://", text, re.IGNORECASE):
        return open_stream(text)
    return None


def _existing(text: str) -> Path | None:
    """Find the path that words name: as they stand, with ``~`` for the home folder, or without blanks around them."""
    for words in dict.fromkeys((text, os.path.expanduser(text), text.strip())):
        if words and found_at(Path(words)) is not None:
            return Path(words)
    return None


def _head(path: Path, status: os.stat_result) -> bytes:
    """Read the first bytes of a regular file."""
    if what := unusual_file(status):
        raise InputError(f"'{shown_name(path)}' is {what}, not a file or folder; copy its pictures into files first")
    try:
        return head_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"'{shown_name(path)}' cannot be read ({os_reason(error)}); check the path")


def _matches(text: str) -> tuple[list[Path], list[str]]:
    """List what a pattern of either kind matches, and what is to be said of it."""
    numbered, notes = numbered_files(text)
    matches = numbered or matches_of(text)
    if matches:
        return matches, notes
    shown = shown_name(_without_user(text))
    if re.search(r"[*?\[]|%0?\d*[di]", text):
        raise InputError(f"no file matches the pattern '{shown}', and no file or folder has this name; check the path")
    raise InputError(f"no picture, folder or video at '{shown}'; check the path, or name a camera as camera:0")


def _without_user(text: str) -> str:
    """Name what is no path, and may be an address without its ``//``."""
    return re.sub(r"^(?![A-Za-z]:[\\/])[^@]*:.*@", "", without_credentials(text))


def _alone(text: str) -> UsageError:
    return UsageError(
        f"'{shown_name(text)}' is a video, camera or stream, which must be the only source; give it by itself"
    )
