"""How long functions and files of the package are, and how many parameters functions take.

A function's lines are those from ``def`` to its end without its docstring. Parameters are counted without ``self``,
``cls``, ``*args`` and ``**kwargs``. Each parameter of a command is an option there, a line each: a command may take
more, and its lines are those of its body.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from edgeseg.cli.app import app

PACKAGE = Path(__file__).resolve().parents[1] / "edgeseg"
FILES = sorted(PACKAGE.rglob("*.py"))

LONGEST_FUNCTION = 45
MOST_PARAMETERS = 8
LONGEST_FILE = 450
MEDIAN_LINES = 6
P95_LINES = 20


class Function(NamedTuple):
    """A function's place, its lines without the docstring, and how many parameters it takes."""

    place: str
    lines: int
    parameters: int


Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _docstring_lines(node: Definition) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return (first.end_lineno or first.lineno) - first.lineno + 1
    return 0


def _parameters(node: Definition) -> int:
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _commands(app: typer.Typer) -> Iterator[Any]:
    """Functions whose parameters are options of the command line."""
    yield from (command.callback for command in app.registered_commands)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _commands(group.typer_instance)
            yield getattr(group.typer_instance.registered_callback, "callback", None)


def _place(command: Any) -> str:
    return f"{command.__module__.removeprefix('edgeseg.').replace('.', '/')}.py:{command.__name__}"


COMMANDS = frozenset(_place(command) for command in _commands(app) if command is not None)


def _functions(tree: ast.AST, prefix: str) -> Iterator[Function]:
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{node.name}" if isinstance(node, Definition | ast.ClassDef) else ""
        if isinstance(node, Definition):
            first = node.body[0].lineno if name in COMMANDS else node.lineno
            lines = (node.end_lineno or first) - first + 1 - _docstring_lines(node)
            yield Function(name, lines, 0 if name in COMMANDS else _parameters(node))
        yield from _functions(node, f"{name}." if name else prefix)


def _functions_of(file: Path) -> Iterator[Function]:
    return _functions(ast.parse(file.read_text(encoding="utf-8")), f"{file.relative_to(PACKAGE).as_posix()}:")


FUNCTIONS = [each for file in FILES for each in _functions_of(file)]
LINES = sorted(each.lines for each in FUNCTIONS)


def _long_functions() -> set[str]:
    return {each.place for each in FUNCTIONS if each.lines > LONGEST_FUNCTION}


def _many_parameters() -> set[str]:
    return {each.place for each in FUNCTIONS if each.parameters > MOST_PARAMETERS}


def _long_files() -> set[str]:
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    return {f"{file.relative_to(PACKAGE).as_posix()}:" for file, count in lines.items() if count > LONGEST_FILE}


@pytest.mark.parametrize("beyond", [_long_functions, _many_parameters, _long_files])
def test_none_exceeds_a_limit(beyond: Callable[[], set[str]]) -> None:
    assert sorted(beyond()) == []


@pytest.mark.parametrize(("share", "limit"), [(0.5, MEDIAN_LINES), (0.95, P95_LINES)])
def test_most_functions_are_short(share: float, limit: int) -> None:
    assert len(LINES) > 1000
    assert LINES[int(share * len(LINES))] <= limit


def test_the_measure_itself() -> None:
    source = '''
class A:
    def f(self, a, /, b, *c, d=1, **e):
        """Doc.

        More.
        """
        def g():
            return 1
        return g
'''
    assert list(_functions(ast.parse(source), "x.py:")) == [Function("x.py:A.f", 4, 3), Function("x.py:A.f.g", 2, 0)]
    assert [each.parameters for each in _functions(ast.parse("def export(a, b): ..."), "cli/export.py:")] == [0]
    assert [each.parameters for each in _functions(ast.parse("def export(a, b): ..."), "cli/models.py:")] == [2]
