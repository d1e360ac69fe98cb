"""Optional packages: imported where they are used; where one is missing, the error says how to install it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

from edgeseg.errors import TargetUnavailableError
from edgeseg.text import first_line

__all__ = ["is_installed", "package_version", "require"]

_NOWHERE = "/nonexistent"


def require(module: str, *, extra: str, why: str = "", advice: str = "") -> ModuleType:
    """Import an optional module, or raise an error that says in one sentence how to get it.

    Args:
        module: Import name, such as ``"openvino"``.
        extra: Extra of edgeseg that installs it; empty where plain ``pip install MODULE`` does.
        why: What needs it, such as ``"the openvino target"``.
        advice: Replaces the sentence's end where pip is not the way.

    Raises:
        TargetUnavailableError: Not installed, or installed and failing to import; the second names the cause.
    """
    wants = why or (f"edgeseg[{extra}]" if extra else "this")
    try:
        with _some_home():
            imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise _missing(module, extra, wants, advice) from error
        raise _broken(module, wants, error) from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise _broken(module, wants, error) from error
    if getattr(imported, "__file__", None) is None:  # a bare folder of that name, such as type stubs leave
        raise _missing(module, extra, wants, advice)
    return imported


@contextlib.contextmanager
def _some_home() -> Iterator[None]:
    """Name a home folder, which is not there, where the user has none: some packages ask for it when imported.

    In a container a user may have neither HOME nor an entry in the list of users.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _NOWHERE
        try:
            yield
        finally:
            if os.environ.get("HOME") == _NOWHERE:
                del os.environ["HOME"]
    else:
        yield


def is_installed(module: str) -> bool:
    """Tell whether `module` can be found, without importing it (its parent packages are imported).

    Example:
        >>> is_installed("numpy"), is_installed("no_such_module")
        (True, False)
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def package_version(*packages: str) -> str:
    """Look up the version of the first installed distribution among `packages`; empty where none is installed."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _missing(module: str, extra: str, wants: str, advice: str) -> TargetUnavailableError:
    package = f"'edgeseg[{extra}]'" if extra else module
    way = advice or f"install it with: pip install {package}"
    return TargetUnavailableError(f"{wants} needs the package {module}, which is not installed; {way}")


def _broken(module: str, wants: str, error: BaseException) -> TargetUnavailableError:
    return TargetUnavailableError(
        f"{wants} needs the package {module}, which is installed but does not import ({first_line(error)}); "
        "repair what the cause names, or install it again"
    )
