"""Optional packages: missing and broken ones each get their own sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeseg._optional import is_installed, package_version, require
from edgeseg.errors import TargetUnavailableError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path for packages of the test's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_returns_the_module() -> None:
    assert require("json", extra="") is sys.modules["json"]


def test_a_missing_package_names_its_extra() -> None:
    wanted = (
        "the openvino target needs the package no_such_pkg, which is not installed; "
        "install it with: pip install 'edgeseg[openvino]'"
    )
    with pytest.raises(TargetUnavailableError) as caught:
        require("no_such_pkg", extra="openvino", why="the openvino target")
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("extra", "advice", "way"),
    [("", "", "pip install no_such_pkg.part"), ("x", "take it from JetPack", "not installed; take it from JetPack")],
)
def test_other_ways_to_get_it(extra: str, advice: str, way: str) -> None:
    with pytest.raises(TargetUnavailableError, match=way):
        require("no_such_pkg.part", extra=extra, advice=advice)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10: cannot open"),
        ("raise OSError('bad ELF header')", "bad ELF header"),
        ("raise RuntimeError()", "RuntimeError"),
    ],
)
def test_a_broken_package_names_the_cause(packages: Path, code: str, cause: str) -> None:
    (packages / "broken_pkg.py").write_text(code)
    with pytest.raises(TargetUnavailableError, match="is installed but does not import") as caught:
        require("broken_pkg", extra="openvino", why="the openvino target")
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bare_folder_is_no_package(packages: Path) -> None:
    """Type stubs and leftovers of an uninstall leave folders that Python would import as empty packages."""
    (packages / "only_a_folder").mkdir()
    assert not is_installed("only_a_folder")
    with pytest.raises(TargetUnavailableError, match="which is not installed"):
        require("only_a_folder", extra="")
    sys.modules.pop("only_a_folder", None)


def test_is_installed_does_not_import(packages: Path) -> None:
    (packages / "explodes.py").write_text("raise SystemExit")
    assert is_installed("explodes")
    assert not is_installed("no_such_pkg")
    assert not is_installed("no_such_pkg.part")


def test_package_version_takes_the_first_found() -> None:
    assert package_version("no-such-distribution", "numpy").split(".")[0].isdigit()
    assert package_version("no-such-distribution") == ""
