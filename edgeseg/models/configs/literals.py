"""What a Python config says, read from its syntax tree without running any of it.

mmengine's Python files are assignments of literals: numbers, texts, lists, dictionaries, ``dict(...)``, names that were
assigned before, and parts of them. Published ones also add widths up (``sum``) and repeat an entry for the values of a
list (``for ratio in ratios``). These are understood; anything else is code, and named with its line.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from edgeseg.models.configs.limits import Budget, ConfigError
from edgeseg.text import first_line, one_line

__all__ = ["BASES", "base_expression", "parse_python", "read_literals"]

BASES = "_base_"
"""The variable that names the files a config is based on, and by which it refers to what they say."""

_BUILDERS: dict[str, type] = {"dict": dict, "list": list, "tuple": tuple}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": sum, "len": len, "max": max, "min": min, "int": int, "float": float,
}  # fmt: skip
_RESERVED = frozenset({*_BUILDERS, *_FUNCTIONS, "range"})
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}  # fmt: skip
_WORDS: dict[type[ast.AST], str] = {
    ast.Import: "an import", ast.ImportFrom: "an import", ast.With: "a with block", ast.For: "a loop",
    ast.While: "a loop", ast.If: "a condition", ast.FunctionDef: "a function", ast.ClassDef: "a class",
    ast.Delete: "a deletion", ast.AugAssign: "a change of a value", ast.Try: "a try block", ast.Assert: "an assertion",
    ast.Lambda: "a function", ast.ListComp: "a comprehension", ast.DictComp: "a comprehension",
    ast.SetComp: "a comprehension", ast.GeneratorExp: "a comprehension", ast.JoinedStr: "an f-string",
    ast.IfExp: "a condition", ast.Compare: "a comparison", ast.BoolOp: "a condition", ast.Set: "a set",
}  # fmt: skip


def parse_python(text: str) -> ast.Module:
    """Parse a Python file.

    Raises:
        ConfigError: It is no Python, or nested too deeply.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"is no Python (line {error.lineno}: {first_line(error, 80)}); check the file") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise ConfigError(f"cannot be parsed ({first_line(error, 80)}); give the config of one network") from error


def base_expression(statement: ast.stmt) -> ast.expr | None:
    """Return what a statement assigns to ``_base_``; None where it does something else."""
    return getattr(statement, "value", None) if _target(statement) == BASES else None


def read_literals(tree: ast.Module, base: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    r"""Read the variables of a Python config.

    Args:
        tree: Of the file.
        base: What the files say that it is based on; ``_base_.x`` and ``{{_base_.x}}`` refer to it.
        budget: How much may be read.

    Returns:
        Values by name, ``_base_`` as it stands.

    Raises:
        ConfigError: A line is code, or too much is said.

    Example:
        >>> tree = parse_python("size = (512, 1024)\nmodel = dict(crop=size, width=2 * size[0])")
        >>> read_literals(tree, {}, Budget())
        {'size': (512, 1024), 'model': {'crop': (512, 1024), 'width': 1024}}
        >>> read_literals(parse_python("import os"), {}, Budget())
        Traceback (most recent call last):
        edgeseg.models.configs.limits.ConfigError: has an import in line 1, which is code, and it is read as data
    """
    reader = _Reader(base, budget)
    try:
        for statement in tree.body:
            reader.read(statement)
    except RecursionError as error:
        raise ConfigError("is nested too deeply; give the config of one network") from error
    return reader.names


class _Reader:
    """The variables that a file has assigned so far."""

    def __init__(self, base: Mapping[str, Any], budget: Budget) -> None:
        self.names: dict[str, Any] = {}
        self._base, self._budget = base, budget

    def read(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Pass) or _is_docstring(statement):
            return
        name = _target(statement)
        if name is None or name in _RESERVED:
            raise _code(statement)
        value = self.value(statement.value)  # type: ignore[attr-defined]  # an assignment has one
        self._budget.count(value)
        self.names[name] = value

    def value(self, node: ast.expr) -> Any:
        """Compute the value of an expression."""
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        if read is None:
            raise _code(node)
        return read(node)

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is not None and not isinstance(node.value, (str, bool, int, float)):
            raise _code(node)
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if node.id == BASES:
            return self._base
        if node.id not in self.names:
            raise _code(node, f"the name '{one_line(node.id, 40)}', which it did not assign before")
        return self.names[node.id]

    def _list(self, node: ast.List | ast.Tuple) -> list[Any]:
        values: list[Any] = []
        for element in node.elts:
            if isinstance(element, ast.Starred):
                values += self._sized(self._iterated(element.value))
            else:
                values.append(self.value(element))
        return values

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._list(node))

    def _set(self, node: ast.Set) -> Any:
        """``{{_base_.x}}``, which Python takes for a set in a set."""
        inner = node.elts[0]
        if len(node.elts) == 1 and isinstance(inner, ast.Set) and len(inner.elts) == 1 and _begins_at_base(inner):
            return self.value(inner.elts[0])
        raise _code(node)

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            made.update(self._mapping(value) if key is None else {self._key(key): self.value(value)})
        return made

    def _call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) and node.func.id not in self.names else ""
        if name == "dict" and len(node.args) <= 1:
            return self._made(node)
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        if name in _BUILDERS and len(node.args) <= 1 and not node.keywords and not starred:
            return _BUILDERS[name](self._sized(self._iterated(node.args[0])) if node.args else ())
        if name == "range" and node.args and not node.keywords and not starred:
            return self._range(node)
        if name in _FUNCTIONS and len(node.args) == 1 and not node.keywords and not starred:
            return self._computed(node, _FUNCTIONS[name], self.value(node.args[0]))
        raise _code(node, f"a call of '{one_line(ast.unparse(node.func), 40)}'")

    def _made(self, node: ast.Call) -> dict[Any, Any]:
        """Build what ``dict(...)`` does."""
        made = dict(self._mapping(node.args[0])) if node.args else {}
        given: dict[Any, Any] = {}
        for keyword in node.keywords:
            each = self._mapping(keyword.value) if keyword.arg is None else {keyword.arg: self.value(keyword.value)}
            if given.keys() & each.keys():
                raise ConfigError(f"gives an entry of dict() twice in line {node.lineno}; leave one of them")
            given.update(each)
        return {**made, **given}

    def _range(self, node: ast.Call) -> list[int]:
        counted: range = self._computed(node, lambda *ends: range(*ends), *(self.value(each) for each in node.args))
        self._budget.take(self._computed(node, len, counted))
        return list(counted)

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        """Repeat an element for the values of lists, as it would stand there once for each."""
        if any(part.ifs or part.is_async for part in node.generators):
            raise _code(node)
        outer, self.names = self.names, dict(self.names)
        try:
            return self._repeated(node.elt, node.generators, sum(1 for _ in ast.walk(node.elt)))
        finally:
            self.names = outer

    def _repeated(self, element: ast.expr, parts: list[ast.comprehension], cost: int) -> list[Any]:
        if not parts:
            self._budget.take(cost)
            return [self.value(element)]
        target = parts[0].target
        if not isinstance(target, ast.Name) or target.id in _RESERVED:
            raise _code(target)
        found: list[Any] = []
        for value in self._iterated(parts[0].iter):
            self.names[target.id] = value
            found += self._repeated(element, parts[1:], cost)
        return found

    def _attribute(self, node: ast.Attribute) -> Any:
        return self._part(node, self.value(node.value), node.attr)

    def _subscript(self, node: ast.Subscript) -> Any:
        owner = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            return self._sized(
                self._part(node, owner, slice(*(None if end is None else self.value(end) for end in ends)))
            )
        return self._part(node, owner, self.value(node.slice))

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if type(node.op) not in _SIGNS or not isinstance(value, (int, float)):
            raise _code(node, "an operation")
        return _SIGNS[type(node.op)](value)

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        compute, length = _ARITHMETIC.get(type(node.op)), -1
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            length = 0
        elif isinstance(node.op, ast.Add) and isinstance(left, (str, list, tuple)) and isinstance(right, type(left)):
            length = len(left) + len(right)
        elif isinstance(node.op, ast.Mult) and isinstance(left, (str, list, tuple)) and isinstance(right, int):
            length = len(left) * max(0, right)
        if compute is None or length < 0:
            raise _code(node, "an operation")
        self._budget.take(length)
        return self._computed(node, compute, left, right)

    def _computed(self, node: ast.expr, compute: Callable[..., Any], *values: Any) -> Any:
        try:
            value = compute(*values)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise ConfigError(f"cannot be computed in line {node.lineno} ({first_line(error, 80)})") from error
        if not isinstance(value, (list, tuple, range)):
            self._budget.count(value)
        return value

    def _key(self, node: ast.expr) -> Any:
        key = self.value(node)
        if not isinstance(key, (str, int, float)):
            raise _code(node, "a key that is neither text nor number")
        return key

    def _mapping(self, node: ast.expr) -> Mapping[Any, Any]:
        value = self.value(node)
        if not isinstance(value, Mapping):
            raise _code(node, f"'**' of '{one_line(ast.unparse(node), 40)}', which is no dictionary")
        self._budget.take(len(value))
        return value

    def _iterated(self, node: ast.expr) -> list[Any]:
        value = self.value(node)
        if not isinstance(value, (list, tuple)):
            raise _code(node, f"a list of '{one_line(ast.unparse(node), 40)}', which is none")
        return list(value)

    def _sized(self, value: Any) -> Any:
        self._budget.take(len(value))
        return value

    def _part(self, node: ast.expr, owner: Any, key: Any) -> Any:
        try:
            return owner[key]
        except (LookupError, TypeError) as error:
            what = one_line(ast.unparse(node), 60)
            raise ConfigError(f"names '{what}' in line {node.lineno}, which is not there; check the name") from error


def _target(statement: ast.stmt) -> str | None:
    """Return the name that a statement assigns to, of one alone."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _begins_at_base(node: ast.Set) -> bool:
    owner: ast.expr = node.elts[0]
    while isinstance(owner, (ast.Attribute, ast.Subscript)):
        owner = owner.value
    return isinstance(owner, ast.Name) and owner.id == BASES


def _code(node: ast.stmt | ast.expr, what: str = "") -> ConfigError:
    word = what or _WORDS.get(type(node), "") or f"'{one_line(ast.unparse(node), 40)}'"
    return ConfigError(f"has {word} in line {node.lineno}, which is code, and it is read as data")
