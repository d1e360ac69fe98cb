"""Engines built on this device, kept between runs.

An engine fits one model, GPU, TensorRT and driver: all of them are in its key, so a change of any builds anew. Beside
every plan lies a small JSON file that says what it was built for and what its bytes hash to. A plan that is damaged or
belongs to something else is rebuilt, and that is said; so is one that others could have written
(`edgeseg.runtimes.cache_folder`). Two processes never build the same plan at once. Above `MOST_BYTES` the plans that
were not used for longest go.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgeseg.errors import EdgesegError, StorageError
from edgeseg.runtimes.cache_folder import DistrustedError, keep_private, locked, make_private, read_private, refusal
from edgeseg.text import first_line, one_line

__all__ = ["MOST_BYTES", "CachedPlan", "PlanKey", "PlanRefusedError", "default_folder", "load_or_build"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


MOST_BYTES = 8 << 30
"""Bytes that all plans of a folder may take together; the one just built stays whatever its size."""


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
    plan = folder / f"{key.digest()}.plan"
    with contextlib.suppress(OSError):  # writing says why it cannot be made
        make_private(folder)
    refused = refusal(folder)
    if refused:
        return _build(key, None, refused, build, load)
    engine, _ = _read(plan, key, load)
    if engine is not None:
        return CachedPlan(engine, built=False)
    with locked(plan.with_suffix(".lock")):
        engine, reason = _read(plan, key, load)  # another process may have built it meanwhile
        if engine is not None:
            return CachedPlan(engine, built=False)
        return _build(key, plan, reason, build, load)


def _build(
    key: PlanKey, plan: Path | None, reason: str, build: Callable[[], bytes], load: Callable[[bytes], _T]
) -> CachedPlan[_T]:
    notes = [reason] if reason else []
    if reason:
        _log.warning("%s", reason)
    _log.info("building an engine for %s with %s; this can take minutes and is done once", key.gpu, key.engine)
    data = build()
    engine = load(data)
    if plan is None:
        return CachedPlan(engine, built=True, notes=tuple(notes))
    try:
        keep_private(plan, data)
        facts = {"built_for": asdict(key), "sha256": hashlib.sha256(data).hexdigest()}
        keep_private(plan.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())
        _evict(plan)
    except StorageError as error:
        notes.append(f"the engine was built for this run only and will be built again: {error}")
        _log.warning("%s", notes[-1])
    return CachedPlan(engine, built=True, notes=tuple(notes))


def _read(plan: Path, key: PlanKey, load: Callable[[bytes], _T]) -> tuple[_T | None, str]:
    """The engine of a plan file, or None and the sentence why it is rebuilt (empty where there was none)."""
    try:
        data, facts = read_private(plan), json.loads(read_private(plan.with_suffix(".json")))
    except (FileNotFoundError, NotADirectoryError):
        return None, f"{_which(plan)} lost its description and was rebuilt" if _exists(plan) else ""
    except DistrustedError as error:
        return None, f"{_which(plan)} {error} and was rebuilt; keep others from writing into '{one_line(plan.parent)}'"
    except (OSError, ValueError) as error:
        return None, f"{_which(plan)} could not be read ({first_line(error)}) and was rebuilt"
    if not isinstance(facts, dict) or facts.get("built_for") != asdict(key):
        return None, f"{_which(plan)} was built for something else and was rebuilt"
    if facts.get("sha256") != hashlib.sha256(data).hexdigest():
        return None, f"{_which(plan)} was damaged (its SHA-256 differs) and was rebuilt"
    try:
        engine = load(data)
    except PlanRefusedError as error:
        return None, f"{_which(plan)} was refused ({error}) and was rebuilt"
    with contextlib.suppress(OSError):
        os.utime(plan)  # used now: among the last to be evicted
    return engine, ""


def _evict(kept: Path) -> None:
    """Remove the plans that were not used for longest, until the others take no more than `MOST_BYTES`."""
    found = []
    for plan in kept.parent.glob("*.plan"):
        with contextlib.suppress(OSError):
            status = plan.lstat()
            found.append((plan != kept, status.st_mtime_ns, status.st_size, plan))
    total = sum(size for _, _, size, _ in found)
    for other, _, size, plan in sorted(found, key=lambda entry: entry[1]):
        if total <= MOST_BYTES:
            return
        if other:
            _log.info("removing the engine %s, which was not used for longest", plan.name[:12])
            for file in (plan, plan.with_suffix(".json")):
                with contextlib.suppress(OSError):
                    file.unlink()
            total -= size


def _which(plan: Path) -> str:
    return f"the cached engine {plan.name[:12]}"


def _exists(plan: Path) -> bool:
    with contextlib.suppress(OSError):
        return plan.exists()
    return False
