"""Files that appear whole or not at all, whatever interrupts the writing: an error, a full disk, a signal, ``kill -9``.

A file or folder is written beside its place under a temporary name (`Partial`) and renamed at the end. It stays locked
while its process lives. A temporary file without a lock was left by a killed process; the next run that writes into
that folder removes it. Permissions are those that the umask gives.

    atomic.py     write a whole file or folder; scratch folders
    partial.py    the file or folder that is being written
    live.py       the partials of this process: observed from outside, removed at its end
    sweep.py      removal of what killed processes left
    exchange.py   two paths change places in one step
    locks.py      locks that end with their process
    names.py      temporary names
    storage.py    the system's refusals as `StorageError`; hashes of files
    opencv.py     paths that OpenCV's video code can open
"""

from __future__ import annotations

from edgeseg.files.atomic import atomic_folder, scratch_folder, write_bytes, write_text
from edgeseg.files.live import discard_partials, observe_partials, remove_partial
from edgeseg.files.opencv import path_for_opencv
from edgeseg.files.partial import Partial
from edgeseg.files.storage import sha256_of, storage_errors

__all__ = [
    "Partial",
    "atomic_folder",
    "discard_partials",
    "observe_partials",
    "path_for_opencv",
    "remove_partial",
    "scratch_folder",
    "sha256_of",
    "storage_errors",
    "write_bytes",
    "write_text",
]
