"""What a wheel and a device depend on: entry points, links, and imports that stay inside functions."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgeseg"
LIGHT = ("export/__init__.py", "export/config.py", "graph/profile.py")
"""Files of the exporting side that the command line's help and the benchmark read: as light as the device side."""


def _is_device_file(file: Path) -> bool:
    parts = file.relative_to(PACKAGE).parts
    return "/".join(parts) in LIGHT or (parts[0] not in ("models", "export", "graph") and "passes" not in parts)


DEVICE_FILES = sorted(file for file in PACKAGE.rglob("*.py") if _is_device_file(file))


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in Python 3.11 and newer")
    data: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return data


def test_entry_point(pyproject: dict[str, Any]) -> None:
    module, _, name = pyproject["project"]["scripts"]["edgeseg"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_version_is_written_once(pyproject: dict[str, Any]) -> None:
    import edgeseg

    assert pyproject["project"]["version"] == edgeseg.__version__


def test_the_device_needs_little(pyproject: dict[str, Any]) -> None:
    names = {word.split(">")[0].split("[")[0] for word in pyproject["project"]["dependencies"]}
    assert names == {"numpy", "opencv-python", "simplejpeg", "onnxruntime", "typer", "rich"}
    assert pyproject["project"]["requires-python"] == ">=3.10"


def test_extras_named_in_advice_exist(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Constant):
                assert node.value.value in ("", *extras), file.name


def test_what_ships(pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["edgeseg"]
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "data" / "astronaut.png").is_file()
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


@pytest.mark.parametrize("name", ["models", "export", "runtimes"])
def test_doors(name: str) -> None:
    door = ROOT / name
    if not door.is_symlink():
        pytest.skip("this checkout has no symbolic links")
    assert door.readlink() == Path("edgeseg", name)
    assert (door / "__init__.py").is_file()


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    """Modules imported when the file is: not in functions, not under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from _imports(getattr(node, field, []))


@pytest.mark.parametrize("file", DEVICE_FILES, ids=[str(file.relative_to(PACKAGE)) for file in DEVICE_FILES])
def test_device_side_imports(file: Path) -> None:
    room = file.relative_to(PACKAGE).parts[0]
    allowed = {"numpy", "cv2", "edgeseg", *sys.stdlib_module_names}
    if room == "cli":
        allowed |= {"typer", "rich"}
    found = list(_imports(ast.parse(file.read_text(encoding="utf-8")).body))
    assert sorted({name.partition(".")[0] for name in found} - allowed) == []
    light = {"edgeseg." + name.removesuffix(".py").replace("/", ".") for name in LIGHT}
    inward = {name for name in found if name.startswith(("edgeseg.models", "edgeseg.export", "edgeseg.graph"))}
    assert inward <= light | {"edgeseg.graph_metadata"}
    assert room == "cli" or not [
        name for name in found if name.startswith("edgeseg.cli") and file.name != "__main__.py"
    ]


def test_imports_are_absolute() -> None:
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert all(node.level == 0 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), file


def test_no_path_of_a_machine_in_the_package() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not [word for word in ("/work" + "/", "/tmp" + "/", "/home" + "/") if word in text], file
