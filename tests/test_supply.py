"""What CI installs: every distribution pinned, every pin hashed and used, and a bill of materials that says so."""

from __future__ import annotations

import copy
import re
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from tests.lock_hashes import LOCAL, LOCK, PINS, locked, pinned_version, read_pins
from tests.make_sbom import TOOL, faults

ROOT = Path(__file__).resolve().parents[1]
BROUGHT = ("pip", "setuptools", "editables", TOOL)  # by venv, by hatchling's editable wheels, by the Makefile


def _applies(need: Requirement, extras: frozenset[str] = frozenset()) -> bool:
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, ""))


PINNED = {canonicalize_name(pin.name): pin for pin in read_pins(PINS)}
HERE = {name for name, pin in PINNED.items() if _applies(pin)}


def _version(name: str) -> Version | None:
    try:
        return Version(distribution(name).version)
    except PackageNotFoundError:
        return None


def _roots() -> Iterator[Requirement]:
    """What the Makefile asks for: the project with its extras, two groups, the build backend, and the tools."""
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in Python 3.11 and newer")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (extras,) = re.findall(r"^EXTRAS = (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    groups = data["dependency-groups"]
    lines = [*data["project"]["dependencies"], *data["build-system"]["requires"], *groups["test"], *groups["lint"]]
    for extra in extras.split(","):
        lines += data["project"]["optional-dependencies"][extra]
    return (Requirement(line) for line in (*lines, *BROUGHT))


def _reached() -> set[NormalizedName]:
    """Distributions that follow from the roots, over the metadata of those that are installed."""
    waiting = [need for need in _roots() if _applies(need)]
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    while waiting:
        need = waiting.pop()
        name, extras = canonicalize_name(need.name), frozenset(need.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if _version(name) is not None:
            lines = distribution(name).requires or ()
            waiting += [below for below in map(Requirement, lines) if _applies(below, extras)]
    return {name for name, _ in seen}


def test_every_pin_has_hashes() -> None:
    text = LOCK.read_text(encoding="utf-8")
    blocks = re.findall(r"^([^#\s].*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    locked = {canonicalize_name(Requirement(line).name): Requirement(line) for line, _ in blocks}
    assert len(locked) == len(blocks) == len(read_pins(LOCK)), "every line of the lock is a pin with hashes"
    assert locked.keys() == PINNED.keys(), "run `make lock`"
    for name, pin in PINNED.items():
        local = f"+{LOCAL[name]}" if name in LOCAL else ""
        assert str(pinned_version(locked[name])) == f"{pinned_version(pin)}{local}", f"run `make lock`: {name}"
        assert str(locked[name].marker) == str(pin.marker), name


def test_what_is_installed_is_pinned() -> None:
    """All of it in CI; on a machine with more in its environment, all that edgeseg and its tools need."""
    places = [sysconfig.get_path(name) for name in ("purelib", "platlib")]  # not what setuptools brings inside itself
    installed = {canonicalize_name(found.name) for found in distributions(path=places)} - {"edgeseg"}
    complete = installed >= HERE
    looked_at = installed if complete else installed & _reached()
    assert looked_at - HERE == set(), "add it to constraints.txt, then `make lock`"
    other = {
        name: str(_version(name)) for name in looked_at if not PINNED[name].specifier.contains(str(_version(name)))
    }
    assert other == {}, "installed in another version than the pinned one"


def test_no_pin_is_unused() -> None:
    absent = sorted(name for name in HERE if _version(name) is None)
    if absent:
        pytest.skip(f"not all pins are installed here, as `LOCKED=1 make venv` does: {', '.join(absent)}")
    assert HERE - _reached() == set(), "take it out of constraints.txt, then `make lock`"


def test_the_backend_and_the_tools_are_pinned() -> None:
    assert {canonicalize_name(need.name) for need in _roots() if _applies(need)} <= HERE


class _Link:
    """A file of an index, as pip's links are."""

    is_file = False
    hash_name = "sha256"

    def __init__(self, filename: str, requires_python: str | None = ">=3.10") -> None:
        self.filename, self.requires_python = filename, requires_python
        self.hash = filename[:1] * 64


def test_lock_takes_every_file_of_the_version_and_no_other() -> None:
    names = ["a_b-1.0-py3-none-any.whl", "a-b-1.0.tar.gz", "a_b-1.0.1-py3-none-any.whl", "a_b_c-1.0-py3-none-any.whl"]
    found = locked(Requirement("A.b==1.0"), lambda name: [_Link(filename) for filename in names])
    assert found.splitlines() == ["A.b==1.0 \\", f"    --hash=sha256:{'a' * 64}"]


def test_lock_takes_the_cpu_build_of_torch() -> None:
    names = ["torch-2.0-cp311-cp311-linux_x86_64.whl", "torch-2.0+cpu-cp311-cp311-linux_x86_64.whl"]
    assert locked(Requirement("torch==2.0"), lambda name: map(_Link, names)).startswith("torch==2.0+cpu \\\n")
    with pytest.raises(SystemExit, match=r"no file of torch 2\.0\+cpu"):
        locked(Requirement("torch==2.0"), lambda name: [_Link(names[0])])


def test_lock_refuses_a_pin_that_python_3_10_cannot_have() -> None:
    def finder(name: str) -> list[_Link]:
        return [_Link("a-1.0-py3-none-any.whl", ">=3.11"), _Link("a-1.0.tar.gz", None)]

    with pytest.raises(SystemExit, match="python_version"):
        locked(Requirement("a==1.0"), finder)
    assert locked(Requirement('a==1.0; python_version >= "3.11"'), finder).startswith("a==1.0; python_version")


@pytest.fixture
def bom() -> dict[str, Any]:
    """A bill of materials without fault, of the device."""
    names = sorted(_direct(), key=lambda name: name != "numpy")  # the first, which the tests change
    parts = [
        {"name": name, "version": str(pinned_version(PINNED[name])), "licenses": [{"license": {"id": "MIT"}}]}
        for name in names
    ]
    return {"specVersion": "1.6", "components": parts, "metadata": {"component": {"name": "edgeseg"}}}


def _direct() -> set[NormalizedName]:
    lines = distribution("edgeseg").requires or ()
    return {canonicalize_name(need.name) for need in map(Requirement, lines) if _applies(need)}


def test_bill_of_materials(bom: dict[str, Any]) -> None:
    assert faults(bom, "") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "left-pad"}, "left-pad is no pin"),
        ({"version": "0.1"}, "numpy is 0.1; expected"),
        ({"licenses": []}, "numpy states no licence"),
        ({"name": "torch"}, "numpy is missing"),
    ],
)
def test_bill_of_materials_with_a_fault(bom: dict[str, Any], change: dict[str, Any], message: str) -> None:
    changed = copy.deepcopy(bom)
    changed["components"][0].update(change)
    assert any(sentence.startswith(message) for sentence in faults(changed, ""))


def test_torch_is_no_part_of_the_device(bom: dict[str, Any]) -> None:
    torch = {"name": "torch", "version": f"{pinned_version(PINNED[canonicalize_name('torch')])}+cpu", "licenses": [{}]}
    bom["components"].append(torch)
    assert [sentence.partition(";")[0] for sentence in faults(bom, "")] == ["torch is on the device"]


def test_no_host_is_written_down() -> None:
    """Where packages come from is pip's configuration, never this project's."""
    for file in (PINS, LOCK, ROOT / "Makefile", ROOT / ".ci" / "run"):
        assert re.findall(r"--(?:extra-)?index-url|--trusted-host|https?://", file.read_text(encoding="utf-8")) == []
