"""Engines built on this device, kept between runs.

An engine fits one model, GPU, TensorRT and driver: all of them are in its key, so a change of any builds anew. A plan
that cannot be used (`edgeseg.runtimes.tensorrt.kept_file`) is rebuilt, and that is said. Two processes never build the
same plan at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgeseg.errors import EdgesegError, StorageError
from edgeseg.runtimes.cache_folder import locked
from edgeseg.runtimes.tensorrt.kept_file import KeptFile, UnusableError

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
        multiprocessors: Of the GPU, in use: boards of one name have 4 to 16, and a power mode switches some off.
        memory: Of the GPU, in bytes.
        engine: Engine and version, such as ``"tensorrt 10.3.0"``.
        driver: CUDA version of the driver.
        flags: Everything else that shapes the build (precision, profile, scratch memory), in words.
    """

    model: str
    gpu: str
    compute_capability: str
    multiprocessors: int
    memory: int
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
        The engine, and what the user must know. A folder that cannot be written or trusted is no error: the plan is
        then used from memory, and the notes say so.

    Raises:
        PlanRefusedError: Even the plan just built was refused.
    """
    kept = KeptFile(folder / f"{key.digest()}.plan", asdict(key))
    refused = kept.refusal()
    if refused:
        return _build(key, None, refused, build, load)
    engine, _ = _read(kept, load)
    if engine is not None:
        return CachedPlan(engine, built=False)
    with locked(kept.path.with_suffix(".lock")):
        engine, reason = _read(kept, load)  # another process may have built it meanwhile
        if engine is not None:
            return CachedPlan(engine, built=False)
        return _build(key, kept, reason, build, load)


def _build(
    key: PlanKey, kept: KeptFile | None, reason: str, build: Callable[[], bytes], load: Callable[[bytes], _T]
) -> CachedPlan[_T]:
    notes = [reason] if reason else []
    if reason:
        _log.warning("%s", reason)
    _log.info("building an engine for %s with %s; this can take minutes and is done once", key.gpu, key.engine)
    data = build()
    engine = load(data)
    if kept is None:
        return CachedPlan(engine, built=True, notes=tuple(notes))
    try:
        kept.write(data)
    except StorageError as error:
        notes.append(f"the engine was built for this run only and will be built again: {error}")
        _log.warning("%s", notes[-1])
    return CachedPlan(engine, built=True, notes=tuple(notes))


def _read(kept: KeptFile, load: Callable[[bytes], _T]) -> tuple[_T | None, str]:
    """The engine of a plan file, or None and the sentence why it is rebuilt (empty where there was none)."""
    which = f"the cached engine {kept.path.name[:12]}"
    try:
        data = kept.read()
    except UnusableError as error:
        return None, f"{which} {error} and was rebuilt{error.advice}"
    if data is None:
        return None, ""
    try:
        engine = load(data)
    except PlanRefusedError as error:
        return None, f"{which} was refused ({error}) and was rebuilt"
    kept.used()
    return engine, ""
