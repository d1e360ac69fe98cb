"""Engines and forked processes: a child has its parent's memory, but none of the threads that an engine waits for.

A child that runs or frees an engine of its parent may wait for ever. So sessions are refused in a child, and what the
parent opened is never freed there, not even when the child ends. Some engines cannot be started a second time either
(`start_engine`). Processes started by spawn or forkserver inherit nothing.
"""

from __future__ import annotations

import ctypes
import os
import weakref

from edgeseg.errors import TargetUnavailableError

__all__ = ["never_free_in_child", "start_engine"]

_OPEN: weakref.WeakSet[object] = weakref.WeakSet()
_STARTED: dict[str, int] = {}


def never_free_in_child(thing: object) -> None:
    """Keep an object of this process alive in every forked child to the child's end, so that no destructor runs."""
    _OPEN.add(thing)


def start_engine(name: str) -> None:
    """Note that an engine starts its threads in this process, before it does.

    Args:
        name: Of the engine, for the message.

    Raises:
        TargetUnavailableError: It started them in the process that this one was forked from.
    """
    if _STARTED.setdefault(name, os.getpid()) != os.getpid():
        raise TargetUnavailableError(
            f"{name} was started before this process was forked, and its threads are missing here; use the start "
            f"method spawn or forkserver, or open nothing for {name} before the fork"
        )


def _keep_open() -> None:
    """Add a reference that nothing gives back: the end of the interpreter clears every other one."""
    for thing in list(_OPEN):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_open)
