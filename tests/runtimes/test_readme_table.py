"""The README's table of targets says what the engines' records say."""

from __future__ import annotations

import re

from edgeseg.runtimes.registry import BUILT_IN
from tests.packages import ROOT


def test_the_readmes_targets_are_the_records() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("\n## Targets\n") :].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    assert [row[:4] for row in rows] == [
        [
            f"`{record.name}`",
            ", ".join(f"`{alias}`" for alias in record.aliases),
            record.needs,
            f"exact postprocessing on the {'GPU' if record.needs_gpu else 'host'}",
        ]
        for record in BUILT_IN
    ]


def test_extras_are_those_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("[project.optional-dependencies]") :].partition("\n\n")[0]
    extras = set(re.findall(r"^([\w-]+) = \[", section, re.MULTILINE))
    assert {record.extra for record in BUILT_IN} - {""} <= extras
