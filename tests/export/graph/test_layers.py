"""The toolkit stands below the passes: nothing in it imports one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgeseg.export.graph

FILES = sorted(Path(edgeseg.export.graph.__file__).parent.glob("*.py"))


def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_toolkit_imports_of_edgeseg_export_only_itself(file: Path) -> None:
    ours = {name for name in _imported(file) if name.startswith(("edgeseg.export", "edgeseg.runtimes"))}
    assert all(name.startswith("edgeseg.export.graph.") for name in ours), ours


def test_the_files_are_found() -> None:
    assert {"editor", "cost", "channel_relations"} <= {file.stem for file in FILES}
