"""The command line as a user meets it: words in; exit code, standard output and one sentence out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from edgeseg.cli import run

__all__ = ["Edgeseg", "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The sentence of an error: the last line of standard error, without a traceback anywhere."""
        assert "Traceback" not in self.err + self.out
        last = self.err.rstrip("\n").splitlines()[-1]
        assert last.startswith("edgeseg: "), self.err
        assert self.err.count("edgeseg: ") == 1
        return last.removeprefix("edgeseg: ")


Edgeseg = Callable[..., Ended]


@pytest.fixture
def edgeseg(capsys: pytest.CaptureFixture[str]) -> Edgeseg:
    """Run a command line in this process."""

    def call(*words: object) -> Ended:
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call
