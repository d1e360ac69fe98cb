"""What imports what: no circle between files or rooms, and each room stands on those below it.

Imports inside functions count; those for type checkers alone (``if TYPE_CHECKING``) do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "edgeseg"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    ("files",),
    ("models", "postprocess", "decoding"),
    ("sources",),
    ("graph",),
    ("runtimes",),
    ("predictor",),
    ("bench",),
    ("export",),
    ("cli",),
)
"""Folders from the ground up; a folder imports none of a higher floor, nor of its own."""


def _module(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {_module(file): file for file in FILES}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement, those in functions too, without those for type checkers."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _statements(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []))
        for handler in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
            yield from _statements(handler.body)


def _imports(source: str) -> set[str]:
    """Modules of the package that a file imports; a name that is a module itself counts as that."""
    found: set[str] = set()
    for node in _statements(ast.parse(source).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return {name for name in found if name in MODULES}


GRAPH = {module: _imports(file.read_text(encoding="utf-8")) - {module} for module, file in MODULES.items()}


def _room(module: str) -> str:
    return [*module.split("."), ""][1]


def _circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another: what is left when all that ends nowhere, or begins nowhere, is gone."""
    left = {node: set(targets) for node, targets in graph.items()}
    while True:
        reached = {target for targets in left.values() for target in targets}
        gone = {node for node, targets in left.items() if not targets or node not in reached}
        if not gone:
            return [sorted(left)] if left else []
        left = {node: targets - gone for node, targets in left.items() if node not in gone}


def test_no_circle_between_files() -> None:
    assert _circles(GRAPH) == []


def test_no_circle_between_rooms() -> None:
    rooms: dict[str, set[str]] = {}
    for module, targets in GRAPH.items():
        rooms.setdefault(_room(module), set()).update(_room(target) for target in targets)
    assert _circles({room: targets - {room} for room, targets in rooms.items()}) == []


def test_no_folder_imports_a_higher_one() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert {_room(module) for module in MODULES if module.count(".") > 1} <= floor.keys()
    wrong = [
        f"{module} -> {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if _room(module) in floor
        and _room(target) in floor
        and _room(target) != _room(module)
        and floor[_room(target)] >= floor[_room(module)]
    ]
    assert wrong == []


def test_the_toolkit_of_graphs_imports_no_pass() -> None:
    tools = {module: targets for module, targets in GRAPH.items() if _room(module) == "graph"}
    above = {module for module in tools if module.startswith("edgeseg.graph.passes")}
    assert [
        (module, targets & above) for module, targets in tools.items() if module not in above and targets & above
    ] == []


def test_the_measure_itself() -> None:
    source = "if TYPE_CHECKING:\n    import edgeseg.cli\ndef f():\n    from edgeseg.text import one_line\nimport numpy"
    assert _imports(source) == {"edgeseg.text"}
    assert _imports("from edgeseg import bundle") == {"edgeseg.bundle"}
    assert _circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    assert len(GRAPH) > 300
