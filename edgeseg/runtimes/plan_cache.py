"""Engines built on this device, kept between runs.

An engine fits one model, GPU, TensorRT and driver: all of them are in its key, so a change of any builds anew. Beside
every plan lies a small JSON file that says what it was built for and what its bytes hash to. A plan that is damaged or
belongs to something else is rebuilt, and that is said. Two processes never build the same plan at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgeseg.errors import EdgesegError, StorageError
from edgeseg.files import write_bytes, write_text

__all__ = ["CachedPlan", "PlanKey", "PlanRefusedError", "default_folder", "load_or_build"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class PlanRefusedError(EdgesegError):
    """The engine's runtime refused a plan's bytes; the plan is rebuilt."""


@dataclass(frozen=True)
class PlanKey:
    """What a plan was built for.

    Attributes:
        model: SHA-256 of the ONNX file.
        gpu: Name of the GPU.
        compute_capability: Such as ``"8.7"``.
        engine: Engine and version, such as ``"tensorrt 10.3.0"``.
        driver: CUDA version of the driver.
        flags: Everything else that shapes the build (precision, profile), in words.
    """

    model: str
    gpu: str
    compute_capability: str
    engine: str
    driver: str
    flags: str = ""

    def digest(self) -> str:
        """Hexadecimal SHA-256 over all fields: the plan's file name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CachedPlan(Generic[_T]):
    """A loaded plan.

    Attributes:
        engine: What `load` made of the bytes.
        built: Whether it was built now.
        notes: Sentences for the user: what was rebuilt and why, or why nothing could be kept.
    """

    engine: _T
    built: bool
    notes: tuple[str, ...] = ()


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/edgeseg/plans``, or ``~/.cache/edgeseg/plans``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
    return root / "edgeseg" / "plans"


def load_or_build(
    key: PlanKey, folder: Path, *, build: Callable[[], bytes], load: Callable[[bytes], _T]
) -> CachedPlan[_T]:
    """Load the plan for `key` from `folder`, or build it and keep it there.

    Args:
        key: What the plan must have been built for.
        folder: Of the plans; made where it is missing.
        build: Makes the plan's bytes; may take minutes.
        load: Makes an engine of bytes; raises `PlanRefusedError` where the runtime refuses them.

    Returns:
        The engine, and what the user must know. A folder that cannot be written is no error: the plan is then used
        from memory, and the notes say so.

    Raises:
        PlanRefusedError: Even the plan just built was refused.
    """
    plan = folder / f"{key.digest()}.plan"
    engine, _ = _read(plan, key, load)
    if engine is not None:
        return CachedPlan(engine, built=False)
    with _locked(plan.with_suffix(".lock")):
        engine, reason = _read(plan, key, load)  # another process may have built it meanwhile
        if engine is not None:
            return CachedPlan(engine, built=False)
        return _build(key, plan, reason, build, load)


def _build(
    key: PlanKey, plan: Path, reason: str, build: Callable[[], bytes], load: Callable[[bytes], _T]
) -> CachedPlan[_T]:
    notes = [reason] if reason else []
    if reason:
        _log.warning("%s", reason)
    _log.info("building an engine for %s with %s; this can take minutes and is done once", key.gpu, key.engine)
    data = build()
    engine = load(data)
    try:
        write_bytes(plan, data)
        facts = {"built_for": asdict(key), "sha256": hashlib.sha256(data).hexdigest()}
        write_text(plan.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    except StorageError as error:
        notes.append(f"the engine was built for this run only and will be built again: {error}")
        _log.warning("%s", notes[-1])
    return CachedPlan(engine, built=True, notes=tuple(notes))


def _read(plan: Path, key: PlanKey, load: Callable[[bytes], _T]) -> tuple[_T | None, str]:
    """The engine of a plan file, or None and the sentence why it is rebuilt (empty where there was none)."""
    try:
        data, facts = plan.read_bytes(), json.loads(plan.with_suffix(".json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None, f"{_which(plan)} lost its description and was rebuilt" if _exists(plan) else ""
    except (OSError, ValueError) as error:
        return None, f"{_which(plan)} could not be read ({error}) and was rebuilt"
    if not isinstance(facts, dict) or facts.get("built_for") != asdict(key):
        return None, f"{_which(plan)} was built for something else and was rebuilt"
    if facts.get("sha256") != hashlib.sha256(data).hexdigest():
        return None, f"{_which(plan)} was damaged (its SHA-256 differs) and was rebuilt"
    try:
        return load(data), ""
    except PlanRefusedError as error:
        return None, f"{_which(plan)} was refused ({error}) and was rebuilt"


def _which(plan: Path) -> str:
    return f"the cached engine {plan.name[:12]}"


def _exists(plan: Path) -> bool:
    with contextlib.suppress(OSError):
        return plan.exists()
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it. Where the folder or the system offers none, there is no lock."""
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("another process is building this engine; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            _log.debug("no lock on %s", path)
        yield
    finally:
        os.close(handle)  # gives the lock back too
