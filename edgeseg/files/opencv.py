"""Paths that OpenCV's video reader and writer can open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgeseg.files.atomic import scratch_folder

__all__ = ["path_for_opencv"]


@contextlib.contextmanager
def path_for_opencv(path: Path) -> Iterator[str]:
    """Yield a path that OpenCV's video reader and writer can open inside the block.

    It is absolute, since FFmpeg takes ``.a:b.mp4`` for an address. A path that is not UTF-8 is reached through a link,
    since OpenCV ends the process at such a path.
    """
    whole = os.path.abspath(path)
    if _is_utf8(whole):
        yield whole
        return
    with scratch_folder("edgeseg-video") as folder:
        link = folder / f"video{path.suffix}"
        link.symlink_to(whole)
        yield str(link)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
