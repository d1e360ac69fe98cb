"""The project's pages and the command lines on them, for the tests that parse these and those that run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer.main

from edgeseg.cli import spread_targets
from edgeseg.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w*)\n.*?^```", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^(?: {4,}|\$ )?(edgeseg [a-z].*)$|`(edgeseg [a-z][^`]*)`", re.MULTILINE)


def command_lines(text: str) -> list[str]:
    """Command lines in indented blocks, shell fences and inline code, in their order; a bare `edgeseg NAME` counts."""
    shell = _FENCE.sub(lambda fence: fence[0] if fence[1] in ("", "sh", "bash", "console", "text") else "", text)
    inside = [fence.span() for fence in _FENCE.finditer(shell)]
    found = []
    for match in _LINE.finditer(shell):
        indented = match[0].startswith(("    ", "`"))
        if indented or any(start < match.start() < end for start, end in inside):
            found.append((match[1] or match[2]).partition("  #")[0].strip())
    return found


def leaves(command: Any, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command under one, groups too, by the words that call it."""
    found = {words: command}
    for name, below in getattr(command, "commands", {}).items():
        found |= leaves(below, (*words, name))
    return found


def whole_app() -> Any:
    """The command line as one command, made anew."""
    return typer.main.get_command(app)


def parse(line: str, *, mention: bool = False) -> None:
    """Let the command line read a line of a page and do nothing; raises what it would say of a wrong one.

    A mention in running text may leave out arguments and an option's value, but names no option that is not there.
    """
    words = spread_targets(shlex.split(line)[1:])
    if len(words) == 1 and words[0] not in ("doctor", "models"):
        words.append("--help")  # the command's name alone, in running text
    command, called = whole_app(), list[Any]()
    for below in leaves(command).values():
        if not hasattr(below, "commands"):
            below.callback = lambda **values: called.append(values)
    try:
        command.main(words, standalone_mode=False, prog_name="edgeseg")
    except Exception as error:  # the class is typer's own or click's, by release
        if not (mention and type(error).__name__ in ("MissingParameter", "BadOptionUsage")):
            raise
    else:
        assert called or "--help" in words, f"'{line}' calls nothing"
