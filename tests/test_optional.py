"""Optional packages where a user has no home folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseg._optional import require
from edgeseg.errors import TargetUnavailableError


def _homeless() -> Path:
    if "HOME" not in os.environ:
        raise RuntimeError("Could not determine home directory.")
    return Path(os.environ["HOME"])


@pytest.mark.usefixtures("site")
def test_a_package_that_asks_for_a_home_imports_without_one(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "asks_for_home.py").write_text("from pathlib import Path\nFOUND = str(Path.home())\n", encoding="utf-8")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", _homeless)
    assert require("asks_for_home", extra="").FOUND == "/nonexistent"
    assert "HOME" not in os.environ


@pytest.mark.usefixtures("site")
def test_a_home_stays(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (site / "asks_again.py").write_text("import os\nFOUND = os.environ['HOME']\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path) == require("asks_again", extra="").FOUND


@pytest.mark.usefixtures("site")
def test_what_fails_to_import_leaves_no_home(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "broken_here.py").write_text("raise RuntimeError('no driver')\n", encoding="utf-8")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", _homeless)
    with pytest.raises(TargetUnavailableError, match="no driver"):
        require("broken_here", extra="")
    assert "HOME" not in os.environ
