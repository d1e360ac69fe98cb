"""Running a Python config, which is code, because the user said that it may run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from edgeseg._optional import is_installed, require
from edgeseg.errors import ExportError
from edgeseg.models.configs.literals import BASES, base_expression
from edgeseg.text import first_line, one_line

__all__ = ["has_mmengine", "plain", "run_by_mmengine", "run_python"]


def has_mmengine() -> bool:
    """Tell whether mmengine, whose files these are, is installed."""
    return is_installed("mmengine")


def run_by_mmengine(file: Path) -> dict[str, Any]:
    """Let mmengine read a config and its bases; modules that it asks to import are not imported.

    Raises:
        TargetUnavailableError: mmengine does not import.
        ExportError: The config fails.
    """
    parser = require("mmengine.config", extra="", why="--trust-config").Config
    try:
        values = parser.fromfile(str(file), import_custom_modules=False).to_dict()
    except (Exception, SystemExit) as error:  # the user's code
        raise _failed(file, error) from error
    return {str(key): plain(value) for key, value in values.items()}


def run_python(file: Path, tree: ast.Module, base: Mapping[str, Any]) -> dict[str, Any]:
    """Run one Python file and take its variables.

    Args:
        file: Where it lies.
        tree: Of it.
        base: What the files say that it is based on.

    Raises:
        ExportError: It fails.
    """
    body = [statement for statement in tree.body if base_expression(statement) is None]
    module = ast.fix_missing_locations(_References().visit(ast.Module(body, [])))
    names: dict[str, Any] = {"__file__": str(file), "__name__": "__config__", BASES: _attributes(base)}
    try:
        exec(compile(module, str(file), "exec"), names)
    except (Exception, SystemExit) as error:  # the user's code
        raise _failed(file, error) from error
    return {
        name: plain(value)
        for name, value in names.items()
        if not name.startswith("__") and name != BASES and not isinstance(value, (ModuleType, FunctionType))
    }


class _References(ast.NodeTransformer):
    """Writes ``{{_base_.x}}``, a set in a set to Python, as ``_base_.x``."""

    def visit_Set(self, node: ast.Set) -> ast.AST:
        inner = node.elts[0]
        if len(node.elts) == 1 and isinstance(inner, ast.Set) and len(inner.elts) == 1:
            return inner.elts[0]
        return self.generic_visit(node)


class _Attributes(dict[str, Any]):
    """A dictionary whose entries are attributes too, as in mmengine."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"the base of the config has no '{name}'")
        return self[name]


def _attributes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _Attributes({key: _attributes(each) for key, each in value.items()})
    return type(value)(_attributes(each) for each in value) if isinstance(value, (list, tuple)) else value


def plain(value: Any) -> Any:
    """Make plain values of what code assigned; a class or function becomes its dotted name, anything else its text.

    Example:
        >>> plain({"type": dict, "size": (1, 2)})
        {'type': 'builtins.dict', 'size': (1, 2)}
    """
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        rows = [plain(each) for each in value]
        return rows if isinstance(value, list) else tuple(rows)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (type, FunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return one_line(value)


def _failed(file: Path, error: BaseException) -> ExportError:
    kind, line = type(error).__name__, first_line(error)
    needs = "; install what it imports (mmengine: pip install mmengine)" if isinstance(error, ImportError) else ""
    return ExportError(f"the config '{one_line(file)}' failed: {line if line == kind else f'{kind}: {line}'}{needs}")
