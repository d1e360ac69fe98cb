"""Sources of pictures: files, folders, patterns, lists, videos, cameras, network streams, or anything iterable.

A source yields `Frame` objects: uint8 RGB pictures with their name and decoding time. An unreadable picture among
readable ones is a frame with an error, so that the rest goes on. A source that cannot be opened at all raises.
"""

from __future__ import annotations

from edgeseg.sources.content import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from edgeseg.sources.folders import list_images, passed_over, pictures_at
from edgeseg.sources.frames import Frame, Source, SourceKind
from edgeseg.sources.opening import open_source
from edgeseg.sources.pictures import open_iterable

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "Source",
    "SourceKind",
    "list_images",
    "open_iterable",
    "open_source",
    "passed_over",
    "pictures_at",
]
