"""Writing files so that a crash, a full disk, a signal or ``kill -9`` leaves nothing half done.

What is being written lies beside its place under a name of its own (`Partial`) and is renamed at the end. It is locked
as long as its process lives: one without a lock was left by a process that was killed, and the next run that writes
into the folder removes it. Modes are those that the umask gives.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from edgeseg._signals import held, settle
from edgeseg.errors import EdgesegError, StorageError
from edgeseg.text import one_line

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

_PARTIAL = re.compile(r"\..*\.edgeseg-[a-z0-9]{8}(\.old|\.[a-z0-9]{1,4})?", re.DOTALL)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_NO_LOCKS_AGE_S = 86400.0  # where the file system has no locks, what is a day old has no owner any more
_EXCHANGE_AGE_S = 60.0  # what lies aside that long is no exchange under way
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_AT_FDCWD = -100

_swept: set[tuple[int, int]] = set()
_live: set[Path] = set()
_observer: Callable[[str, Path], None] | None = None


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write `path` into one sentence.

    Raises:
        StorageError: Disk full, no permission, read-only file system, or a path that cannot be.
    """
    try:
        yield
    except EdgesegError:
        raise
    except (OSError, ValueError) as error:
        reasons = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
        number = getattr(error, "errno", None) or 0
        reason = reasons.get(number, (getattr(error, "strerror", None) or str(error)).lower())
        raise StorageError(f"cannot write '{one_line(path)}': {reason}; free space or choose another folder") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# --- what is being written ---------------------------------------------------------------------------------------


class Partial:
    """A file or folder that is being written beside its place.

    Use it in a ``with`` block: `put_in_place` ends it well, and what was not put in place is removed.

    Args:
        target: Where it belongs; the folder above is made where it is missing.
        folder: Make a folder instead of a file.
        suffix: Of the temporary name, for writers that go by it, such as ``".mp4"``.

    Attributes:
        path: Where to write.
        target: As given.

    Raises:
        StorageError: It cannot be made.
    """

    def __init__(self, target: Path, *, folder: bool = False, suffix: str = "") -> None:
        self.target = target
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep_once(target.parent)
            self.path, self._lock = _make(target, folder, suffix)
        self._gone = False

    def put_in_place(self, *, replaces: Callable[[Path], None] | None = None, settles: bool = False) -> None:
        """Rename it to `target`; what stood there is replaced at once.

        Args:
            replaces: Called with `target` where something stands there; raises where that must not be replaced.
            settles: It is what the command was for: a signal that comes from now on no longer changes how it ends.

        Raises:
            StorageError: Renaming failed; what stood there is untouched.
        """
        with storage_errors(self.target), held():
            if replaces is not None and _is_there(self.target):
                replaces(self.target)
            if stat.S_ISDIR(os.lstat(self.path).st_mode) and _is_there(self.target):
                _exchange(self.path, self.target)
            else:
                os.replace(self.path, self.target)
            if settles:
                settle()

    def discard(self) -> None:
        """Remove what is not in its place, and let go of the lock; calling it twice is harmless."""
        if self._gone:
            return
        self._gone = True
        remove_partial(self.path)
        if self._lock is not None:
            os.close(self._lock)
        _forget(self.path)

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, then rename it into place.

    Raises:
        StorageError: Writing failed; `path` is as it was before.
    """
    with Partial(path) as partial, storage_errors(path):
        with partial.path.open("wb") as stream:
            stream.write(data)
        partial.put_in_place()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does; what UTF-8 cannot hold is written as ``?``."""
    write_bytes(path, text.encode(errors="replace"))


@contextlib.contextmanager
def atomic_folder(
    path: Path, *, replaces: Callable[[Path], None] | None = None, settles: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends well, and vanishes otherwise.

    An existing folder at `path` is replaced only at the very end.

    Args:
        path: Of the folder.
        replaces: Called with `path` where something stands there; raises where that must not be replaced.
        settles: As in `Partial.put_in_place`.

    Raises:
        StorageError: Writing failed; what stood at `path` is untouched.
    """
    with Partial(path, folder=True) as partial:
        yield partial.path
        partial.put_in_place(replaces=replaces, settles=settles)


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Yield a folder for temporary files that vanishes with the block, or with the next run after a ``kill -9``."""
    with Partial(Path(tempfile.gettempdir()) / name, folder=True) as partial:
        yield partial.path


@contextlib.contextmanager
def path_for_opencv(path: Path) -> Iterator[str]:
    """A path for OpenCV's video reader and writer, good as long as they open it.

    Absolute, since FFmpeg takes ``.a:b.mp4`` for a URL; through a link where the path is not UTF-8, at which OpenCV
    ends the process.
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


def observe_partials(observer: Callable[[str, Path], None] | None) -> None:
    """Have `observer` called with ``"+"`` or ``"-"`` and the path of every `Partial` that is made or gone."""
    global _observer
    _observer = observer


def discard_partials() -> None:
    """Remove every partial that this process still has: an exception may come between one's making and its ``with``."""
    for path in list(_live):
        remove_partial(path)
        _forget(path)


def remove_partial(path: Path) -> None:
    """Remove a partial file or folder; what an interrupted exchange moved aside goes back to its place instead."""
    for found in (path, aside := path.with_name(f"{path.name}.old")):
        with contextlib.suppress(OSError):
            if found == aside and not _is_there(home := path.with_name(_home(path.name))):
                os.rename(aside, home)
            elif stat.S_ISDIR(os.lstat(found).st_mode):
                shutil.rmtree(found, ignore_errors=True)
            else:
                os.unlink(found)


def _home(name: str) -> str:
    return name[1:].rpartition(".edgeseg-")[0]


def _remember(path: Path) -> None:
    """Note a partial before it is made, so that nothing that interrupts leaves it behind."""
    _live.add(path.absolute())
    if _observer is not None:
        _observer("+", path.absolute())


def _forget(path: Path) -> None:
    _live.discard(path.absolute())
    if _observer is not None:
        _observer("-", path.absolute())


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _make(target: Path, folder: bool, suffix: str) -> tuple[Path, int | None]:
    """Make and lock a file or folder; again under another name where a sweep took it in between."""
    for _ in range(100):
        mark = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        path = target.with_name(f".{_shortened(target.name, suffix)}.edgeseg-{mark}{suffix}")
        _remember(path)
        try:
            if folder:
                path.mkdir()
            else:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            _forget(path)
            if isinstance(error, FileExistsError):
                continue
            raise
        lock = _opened(path)
        if lock is None or (_lock(lock) is not False and _same(lock, path)):
            return path, lock
        os.close(lock)
        _forget(path)
    raise FileExistsError(errno.EEXIST, "no free temporary name", str(target))


def _shortened(name: str, suffix: str) -> str:
    """As much of a name as leaves room for ours in 255 bytes; of a folder all, since an exchange may need it again."""
    room = 255 - len(f"..edgeseg-12345678.old{suffix}")
    return os.fsdecode(os.fsencode(name)[:room]) if len(os.fsencode(name)) > room else name


def _opened(path: Path) -> int | None:
    """A file or folder opened to be locked, links not followed; None where that cannot be (folders on Windows)."""
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None


def _lock(handle: int) -> bool | None:
    """Lock an open file: True, False where another process holds it, None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether an open file is still what lies at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


# --- what a killed process left ----------------------------------------------------------------------------------


def _sweep_once(folder: Path) -> None:
    """Remove what killed processes left in a folder; once per process and folder."""
    found = os.stat(folder)
    key = (found.st_dev, found.st_ino)
    if key in _swept:
        return
    _swept.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                _remove_orphan(Path(entry.path))


def _remove_orphan(path: Path) -> None:
    """Remove a partial of this user whose process is gone."""
    try:
        status = os.lstat(path)
    except OSError:
        return
    plain = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    if not plain or (hasattr(os, "geteuid") and status.st_uid != os.geteuid()):
        return
    age = time.time() - status.st_mtime
    if path.name.endswith(".old"):  # never locked itself; its partner decides as long as it is there
        partner = path.with_name(path.name.removesuffix(".old"))
        if not _is_there(partner) and age > _EXCHANGE_AGE_S:
            remove_partial(partner)
        return
    handle = _opened(path)
    if handle is None:
        return
    try:
        locked = _lock(handle)
        if (locked or (locked is None and age > _NO_LOCKS_AGE_S)) and _same(handle, path):
            remove_partial(path)
    finally:
        os.close(handle)


# --- changing places ---------------------------------------------------------------------------------------------


def _exchange(new: Path, old: Path) -> None:
    """Let two paths change places, at once where the system can; the old one then lies at the new one's name."""
    if _renameat2(new, old):
        return
    aside = new.with_name(f"{new.name}.old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    os.rename(aside, new)


def _renameat2(first: Path, second: Path) -> bool:
    """Exchange two paths by Linux's system call; False where system or file system lack it."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = (ctypes.c_char_p(os.fsencode(path)) for path in (first, second))
    return bool(call(_AT_FDCWD, next(names), _AT_FDCWD, next(names), ctypes.c_uint(_EXCHANGE)) == 0)
