"""Packages of somebody else's for tests: laid out as pip installs them, without pip, without an index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["ROOT", "TOY_ENGINE", "environment", "install", "install_project"]

ROOT = Path(__file__).resolve().parents[1]
TOY_ENGINE = ROOT / "tests" / "toy_engine"


def install(
    site: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    modules: Mapping[str, str] | None = None,
    version: str = "0.1.0",
) -> None:
    """Install a package into a folder that is, or will be, on the import path.

    Args:
        site: The folder.
        name: Of the distribution.
        entry_points: Group -> name -> object.
        modules: Modules that come with it -> their source.
        version: Of the distribution.
    """
    facts = site / f"{name.replace('-', '_')}-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()), ""]
    (facts / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    for module, source in (modules or {}).items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")


def install_project(site: Path, project: Path) -> None:
    """Install the project of a ``pyproject.toml`` with every package in its folder."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in Python 3.11 and newer")
    data = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(site, data["name"], data["entry-points"], version=data["version"])
    for package in project.iterdir():
        if (package / "__init__.py").is_file():
            shutil.copytree(package, site / package.name, ignore=shutil.ignore_patterns("__pycache__"))


def environment(*folders: Path) -> dict[str, str]:
    """This process's environment with folders on the import path, this checkout behind them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT)))}
