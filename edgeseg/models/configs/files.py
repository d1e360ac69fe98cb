"""Config files: mmengine's Python form, and JSON or YAML as it dumps them; nothing of them runs unasked."""

from __future__ import annotations

import ast
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeseg._optional import require
from edgeseg.errors import EdgesegError, UsageError
from edgeseg.fields import FieldError, parse_object
from edgeseg.models.configs.limits import LARGEST_FILE, MOST_FILES, Budget, ConfigError
from edgeseg.models.configs.literals import BASES, base_expression, parse_python, read_literals
from edgeseg.models.configs.merging import join_bases, merged
from edgeseg.models.configs.trusted import has_mmengine, run_by_mmengine, run_python
from edgeseg.text import first_line, one_line, os_reason

__all__ = ["read_config_file"]

_TRUST = "run it with --trust-config (trust=True), or give what mmengine's Config.dump writes as JSON"
_SUFFIXES = (".py", ".json", ".yaml", ".yml")


def read_config_file(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    r"""Read a config and the files that it is based on.

    Args:
        path: A ``.py`` file of mmengine (or of mmcv, its forerunner), or a ``.json``, ``.yaml`` or ``.yml`` dump.
        trust: Run a ``.py`` file: by mmengine where it is installed. Without it, literals alone are read of it.

    Returns:
        What it says, by name.

    Raises:
        UsageError: It cannot be read, is too large, or has code in it that may not run.
        ExportError: Its code fails.
        TargetUnavailableError: A YAML file, and PyYAML is not installed.

    Example:
        >>> _ = Path("base.py").write_text("model = dict(type='EncoderDecoder', depth=50)")
        >>> _ = Path("mine.py").write_text("_base_ = './base.py'\nmodel = dict(depth=18)")
        >>> read_config_file("mine.py")
        {'model': {'type': 'EncoderDecoder', 'depth': 18}}
    """
    file = Path(path)
    if trust and file.suffix.lower() == ".py" and has_mmengine():
        _text(file)  # a missing file is told in the words of this package
        return _counted(file, run_by_mmengine(file))
    return _Reading(trust).read(file, ())


def _counted(file: Path, values: dict[str, Any]) -> dict[str, Any]:
    try:
        Budget().count(values)
    except ConfigError as error:
        raise UsageError(f"the config '{one_line(file)}' {error}") from error
    return values


class _Reading:
    """One config with all of its files."""

    def __init__(self, trust: bool) -> None:
        self.trust, self.files, self.budget = trust, 0, Budget()

    def read(self, file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
        """Read a file; `chain` are those that lead to it."""
        try:
            return self._read(file, chain)
        except ConfigError as error:
            advice = f"; {_TRUST}" if str(error).endswith("read as data") else ""
            raise UsageError(f"the config '{one_line(file)}' {error}{advice}") from error

    def _read(self, file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
        self.files += 1
        if self.files > MOST_FILES:
            raise ConfigError(f"is based on more than {MOST_FILES} files; give what mmengine's Config.dump writes")
        text, chain = _text(file), (*chain, file.resolve())
        if file.suffix.lower() == ".py":
            return self._python(file, text, chain)
        own = _json(text) if file.suffix.lower() == ".json" else _yaml(text)
        self.budget.count(own)
        return self._over_bases(file, own, self._bases(file, own.pop(BASES, ()), chain))

    def _python(self, file: Path, text: str, chain: tuple[Path, ...]) -> dict[str, Any]:
        tree, named = parse_python(text), ()
        for statement in tree.body:
            if base_expression(statement) is not None:
                named = read_literals(ast.Module([statement], []), {}, self.budget)[BASES]
        base = self._bases(file, named, chain)
        own = run_python(file, tree, base) if self.trust else read_literals(tree, base, self.budget)
        self.budget.count(own)
        own.pop(BASES, None)
        own = {name: value for name, value in own.items() if not name.startswith("__")}
        return self._over_bases(file, own, base)

    def _bases(self, file: Path, named: Any, chain: tuple[Path, ...]) -> dict[str, Any]:
        """Read the files that a config names as its bases."""
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"has for {BASES} what is no file name, nor a list of them")
        return join_bases([self._base(file, name, chain) for name in names])

    def _base(self, file: Path, name: str, chain: tuple[Path, ...]) -> dict[str, Any]:
        shown = one_line(name, 80)
        if "::" in name or "://" in name or name.startswith("~") or Path(name).is_absolute():
            raise ConfigError(f"is based on '{shown}', which is no path relative to it; give what Config.dump writes")
        base = file.parent / name
        if base.resolve() in chain:
            raise ConfigError(f"is based on '{shown}', which is based on it; break the circle")
        return self.read(base, chain)

    def _over_bases(self, file: Path, own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
        try:
            values = merged(base, own)
        except RecursionError as error:
            raise ConfigError("is nested too deeply; give the config of one network") from error
        self.budget.count(values)
        return values


def _text(file: Path) -> str:
    """Return the text of a file; its ending, kind and size are looked at first."""
    shown = one_line(file)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"the config '{shown}' is no file; give the path of one")
        if file.suffix.lower() not in _SUFFIXES:
            raise UsageError(
                f"the config '{shown}' ends in none of {', '.join(_SUFFIXES)}; give mmengine's file or a dump"
            )
        if status.st_size > LARGEST_FILE:
            raise UsageError(
                f"the config '{shown}' has {status.st_size} bytes, and at most {LARGEST_FILE} are read; "
                "give the config of one network"
            )
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"the config '{shown}' cannot be read ({os_reason(error)}); check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the config '{shown}' is no UTF-8 text; save it as UTF-8") from error
    except ValueError as error:  # a null character in the name
        raise UsageError(f"the config '{shown}' cannot be read ({first_line(error)}); check the path") from error


def _json(text: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except FieldError as error:
        raise ConfigError(f"cannot be read: {error}; give what mmengine's Config.dump writes") from error


def _yaml(text: str) -> dict[str, Any]:
    """Parse YAML, whose tuples are mmengine's only."""
    yaml = require("yaml", extra="", why="a config in YAML", advice="install it with: pip install pyyaml, or dump JSON")
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("tag:yaml.org,2002:python/tuple", yaml.SafeLoader.construct_yaml_seq)
    try:
        values = yaml.load(text, Loader=loader)
    except EdgesegError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"is no YAML of plain values ({first_line(error, 100)}); dump it as JSON") from error
    if not isinstance(values, dict):
        raise ConfigError("is no YAML dictionary; give what mmengine's Config.dump writes")
    return values
