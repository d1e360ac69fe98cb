"""Advice fits the command that prints it: every option that a message names is an option of that very command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from edgeseg.cli.app import app
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import make_tiny_bundle, picture

PACKAGE = Path(__file__).resolve().parents[2] / "edgeseg"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b(?!-)")
ELSEWHERE = re.compile(r"(`?edgeseg (\w+)( [^`;]*?)?|export it again with )(--[a-z][a-z-]+)")
"""An option that the message names together with the command that has it."""

FOREIGN = {"--system-site-packages", "--runtime", "--upgrade"}
"""Options of other programs."""


def _flags(command: Any) -> set[str]:
    return {"--help"} | {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}


def _commands(group: Any) -> Iterator[tuple[str, set[str]]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield name, set().union(*(flags for _, flags in _commands(command)))
        else:
            yield name, _flags(command)


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _wrong(command: str, text: str) -> list[str]:
    """Options that a text names and the command lacks."""
    own = set()
    for found in ELSEWHERE.finditer(text):
        assert found[4] in COMMANDS[found[2] or "export"], text
        own.add(found[4])
    return [flag for flag in OPTION.findall(text) if flag not in COMMANDS[command] | own | FOREIGN]


def test_the_measure_itself() -> None:
    assert "--recursive" in COMMANDS["predict"] & COMMANDS["eval"]
    assert _wrong("benchmark", "search its subfolders too (--recursive)") == ["--recursive"]
    assert _wrong("predict", "search its subfolders too (--recursive)") == []
    assert _wrong("doctor", "signed (`edgeseg verify --key` tells by whom)") == []
    assert _wrong("predict", "export it again with --target trt") == []


def _texts(file: Path) -> Iterator[str]:
    """Texts of a file that are no docstring."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    described = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            yield node.value


def test_every_option_that_a_text_names_is_there_in_some_command() -> None:
    known = {"--version"}.union(*COMMANDS.values()) | FOREIGN
    named = {
        (flag, file.name) for file in PACKAGE.rglob("*.py") for text in _texts(file) for flag in OPTION.findall(text)
    }
    assert len(named) > 50
    assert [each for each in sorted(named) if each[0] not in known] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; folders of pictures, of nothing, of folders; label maps of several kinds."""
    root = tmp_path_factory.mktemp("advice")
    make_tiny_bundle(root)
    make_tiny_bundle(root, name="two", num_classes=2)
    make_tiny_bundle(root, name="city", num_classes=19)
    make_tiny_bundle(root, name="free", dynamic=True)
    for name in ("images", "empty", "deep/a", "void", "ids", "mask", "turned", "leftImg8bit/val/a", "gtFine/val/a"):
        (root / name).mkdir(parents=True)
    cv2.imwrite(str(root / "images" / "0.png"), picture((40, 60)))
    cv2.imwrite(str(root / "deep" / "a" / "0.png"), picture((40, 60)))
    for name, value in (("void", 255), ("ids", 26), ("mask", 255)):
        cv2.imwrite(str(root / name / "0.png"), np.full((40, 60), value, np.uint8))
    cv2.imwrite(str(root / "turned" / "0.png"), np.zeros((60, 40), np.uint8))
    (root / "no.png").write_text("no picture")
    return root


EVAL = ("eval", "tiny.edgeseg", "--images")
EXPORT = ("export", "tests.export.networks:tiny", "--size", "32x48", "--out", "out")
INT8 = (*EXPORT, "--precision", "int8", "--calib")
WRONG = [
    "predict tiny.edgeseg empty --out out",
    "predict tiny.edgeseg deep --out out",
    "predict tiny.edgeseg nothing --out out",
    "predict tiny.edgeseg no.png --out out",
    "predict tiny.edgeseg images --out images",
    "predict tiny.edgeseg images --out out --output big",
    "predict tiny.edgeseg images --out out --target trt",
    "predict tiny.edgeseg images --out out --target torch",
    "predict tiny.edgeseg images --out out --max-pixels 9",
    "predict tiny.edgeseg images --out out --opacity 3",
    "eval tiny.edgeseg",
    "eval tiny.edgeseg --images images",
    "eval tiny.edgeseg --labels void --ignore 3",
    "eval tiny.edgeseg --images images --labels void",
    "eval tiny.edgeseg --images images --labels empty",
    "eval tiny.edgeseg --images images --labels turned",
    "eval tiny.edgeseg --images empty --labels void",
    "eval tiny.edgeseg --images deep --labels deep",
    "eval tiny.edgeseg --images nothing --labels void",
    "eval tiny.edgeseg --images images --labels nothing",
    "eval tiny.edgeseg --images images --labels void --max-pixels 9",
    "eval tiny.edgeseg --images leftImg8bit/val --labels gtFine/val",
    "eval tiny.edgeseg --images images --labels ids --ignore 0",
    "eval two.edgeseg --images images --labels mask",
    "eval two.edgeseg --images images --labels mask --positive-label 255 --ignore 255",
    "eval city.edgeseg --images images --labels ids",
    "eval tiny.edgeseg --dataset camvid empty",
    "eval tiny.edgeseg --dataset coco-stuff empty --images images",
    "eval tiny.edgeseg --dataset binary empty --recursive",
    "verify tiny.edgeseg --images empty",
    "verify tiny.edgeseg --images deep",
    "verify tiny.edgeseg --target torch",
    "verify tiny.edgeseg --key nothing.pem",
    "benchmark tiny.edgeseg --images empty",
    "benchmark tiny.edgeseg --images deep",
    "benchmark tiny.edgeseg --min-samples 9 --max-samples 2",
    "benchmark compare no.png no.png",
    "models --size big",
    "sign tiny.edgeseg --key nothing.pem",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_device_command_advises_its_own_options(
    line: str, place: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try(line.split(), place, edgeseg, monkeypatch)


def _try(words: list[str], place: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(place)
    done = edgeseg(*words)
    assert done.code not in (0, 1), done.out
    assert "Traceback" not in done.err
    assert _wrong(words[0], done.err) == [], done.err
    return done.err


@pytest.mark.parametrize(
    "line",
    [
        "--precision int8",
        "--precision int8 --calib empty",
        "--precision int8 --calib deep",
        "--precision int8 --calib nothing",
        "--precision int8 --calib images --max-miou-drop 0.1",
        "--precision int8 --calib images --calib-ignore 255",
        "--precision int8 --calib-labels void",
        "--precision int8 --calib images --calib-labels empty",
        "--precision int8 --calib images --calib-labels void",
        "--precision int8 --calib images --calib-labels turned",
        "--precision int8 --calib deep --calib-labels deep",
        "--precision int8 --calib leftImg8bit/val --calib-labels gtFine/val",
        "--precision int8 --calib images --calib-dataset voc empty",
        "--precision int8 --calib-dataset voc empty",
        "--precision int8 --calib-dataset voc empty --calib-recursive",
        "--calib images",
        "--parity-images empty",
        "--parity-images deep",
        "--sample no.png",
        "--threshold 0.5",
        "--take 3",
        "--dynamic --output labels",
        "--label-size 32x48",
        "--labels voc",
        "--name a/b",
        "--weights no.png",
        "--weights-key ema",
        "--classes 3",
        "--precision bf16",
    ],
)
def test_export_advises_its_own_options(
    line: str, place: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = _try([*EXPORT, *line.split()], place, edgeseg, monkeypatch)
    if "--calib-" in line and "--calib-dataset" not in line:
        assert not re.search(r"(?<![\w-])--(ignore|recursive|dataset|label-suffix|label-map)\b", err), err


@pytest.mark.parametrize("line", ["--take 3", "--weights no.png", "--weights-key ema", "--size 0x3", "--classes 3"])
def test_inspect_advises_its_own_options(
    line: str, place: Path, edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    _try(["inspect", "tests.export.networks:tiny", *line.split()], place, edgeseg, monkeypatch)
