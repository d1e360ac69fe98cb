"""What the README and docs say can be done, can be done: code runs, command lines parse, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.pages import PAGES, README, ROOT, command_lines, parse
from tests.runtimes.bundles import make_tiny_bundle, picture

LINES = sorted({(page.name, line) for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))})


def test_there_are_command_lines_to_check() -> None:
    commands = {line.split()[1] for page, line in LINES if page == "README.md"}
    assert {"models", "export", "predict", "verify", "eval", "benchmark", "doctor"} <= commands


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_command_line_parses(page: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_and_pictures_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [link.partition("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def _python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_prediction_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(block for block in _python_blocks() if "Predictor(" in block)
    names = re.findall(r'"(build/)?(\w+)\.edgeseg"', block)
    assert names
    monkeypatch.chdir(tmp_path)
    for folder, name in names:
        make_tiny_bundle(Path(folder or "."), name=name, targets=("ort", "openvino"))
    cv2.imwrite("frame.png", picture((40, 60)))
    video = cv2.VideoWriter("drive.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))  # type: ignore[attr-defined]
    for seed in range(3):
        video.write(picture((48, 64), seed))
    video.release()
    space: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), space)
    assert Path("overlay.png").is_file()
    assert space["result"].size == (48, 64)
    space["predictor"].close()


def test_export_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tests.export.networks import Tiny

    block = next(block for block in _python_blocks() if "export_model(" in block)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("(512, 1024)", "(64, 128)"), "README.md", "exec"), {"my_network": Tiny()})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.edgeseg"]


def test_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from edgeseg import errors

    codes = {getattr(errors, name).exit_code for name in errors.__all__ if name != "annotations"}
    paragraph = README.partition("## Exit codes")[2].partition("##")[0]
    said = {int(code) for code in re.findall(r"(?:^|· )(\d+) ", paragraph.replace("\n", " ").strip())}
    assert codes <= said
    assert {0, 130} <= said
