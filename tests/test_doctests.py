"""The examples in the docstrings of the package, run as a user would type them."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import edgeseg
from tests.doctest_namespace import globs

PACKAGE = Path(__file__).resolve().parents[1] / "edgeseg"


def _modules_with_examples() -> list[str]:
    files = [file for file in PACKAGE.rglob("*.py") if ">>> " in file.read_text(encoding="utf-8")]
    parts = (file.relative_to(PACKAGE.parent).with_suffix("").parts for file in files)
    return sorted(".".join(part for part in each if part != "__init__") for each in parts)


MODULES = _modules_with_examples()
PUBLIC = (
    *(name for name in edgeseg.__all__ if name != "__version__"),
    "export.config.option_help",
    "models.ModelSpec.but",
    "models.custom_spec",
    "models.create_model",
    "models.list_models",
    "models.model_spec",
    "models.register",
    "models.backbones.registry.create_backbone",
    "models.backbones.registry.list_backbones",
    "models.checkpoints.load_state",
    "models.checkpoints.open_checkpoint",
    "models.checkpoints.read_checkpoint",
    "models.count.count_macs",
    "models.count.count_parameters",
    "models.facts.read_rows",
    "models.features.Features",
    "models.heads.registry.build_from_config",
    "models.heads.registry.head_class",
    "models.heads.registry.list_heads",
    "models.heads.registry.list_necks",
    "models.registry.Registry",
    "models.segmentor.Segmentor",
    "models.segmentor.create_segmentor",
    "models.source.resolve_network",
    "models.suggest.suggest_network",
)
"""What a user calls; each shows how."""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what an example registers."""
    registry = importlib.import_module("edgeseg.models.registry")
    registry.list_models()
    monkeypatch.setattr(registry.NETWORKS, "_entries", dict(registry.NETWORKS._entries))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), extraglobs=globs()):
        runner.run(test, out=printed.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(printed)


def _named(path: str) -> object:
    module, _, name = f"edgeseg.{path}".rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:  # a method: its class stands before it
        return getattr(_named(module.removeprefix("edgeseg.")), name)


@pytest.mark.parametrize("path", PUBLIC)
def test_what_a_user_calls_shows_an_example(path: str) -> None:
    assert ">>> " in (inspect.getdoc(_named(path)) or "")
