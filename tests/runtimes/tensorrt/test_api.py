"""What edgeseg touches of TensorRT's package is there: in TensorRT-RTX, and in every version of TensorRT listed.

The lists (``names/``) were read from the wheels of those versions (`tests.make_tensorrt_names`): 10.3 is JetPack 6's,
10.16 JetPack 7.2's, 10.0 the oldest that is taken and 11.4 the newest.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseg.bench import gpu
from edgeseg.runtimes.tensorrt import _api
from edgeseg.runtimes.tensorrt.environment import _DIAGNOSTICS
from tests.make_tensorrt_names import FOLDER, names_of
from tests.runtimes import fakes
from tests.runtimes.fakes import fake_tensorrt

FOLDERS = Path(_api.__file__).parent, Path(gpu.__file__).parent
FILES = [file for folder in FOLDERS for file in sorted(folder.rglob("*.py"))]
TREES = [ast.parse(file.read_text(encoding="utf-8")) for file in FILES]

CLASSES = {
    "Network": "INetworkDefinition",
    "Profile": "IOptimizationProfile",
    "Context": "IExecutionContext",
    "Engine": "ICudaEngine",
    "Config": "IBuilderConfig",
    "Parser": "OnnxParser",
    "RtxRuntime": "Runtime",
    "RtxEngine": "ICudaEngine",
    "Inspector": "EngineInspector",
}
"""Protocol of `_api`, or class of the fake, -> class of the package, where that is neither NAME nor INAME."""

THE_FAKES_OWN = {"model", "get_tensor_size"}

OF_RTX = {
    "": {"ComputeCapability", "EngineInvalidityDiagnostics"},
    "IBuilderConfig": {"num_compute_capabilities", "set_compute_capability"},
    "Runtime": {"get_engine_validity"},
    "IRuntimeConfig": {"create_runtime_cache", "cuda_graph_strategy", "set_runtime_cache"},
}
"""Class (``""`` is the module) -> names that TensorRT-RTX alone has; edgeseg asks for them on its paths alone."""

Names = dict[str, set[str]]


def _listed(file: Path) -> Names:
    return {name: set(found) for name, found in json.loads(file.read_text()).items() if name != "wheel"}


LISTS = {file.stem: _listed(file) for file in sorted(FOLDER.glob("*.json"))}


@pytest.fixture(scope="module", params=["tensorrt-rtx", *LISTS])
def package(request: pytest.FixtureRequest) -> tuple[bool, Names]:
    """Whether it is TensorRT-RTX, and the names of a package."""
    if request.param in LISTS:
        return False, LISTS[request.param]
    module = pytest.importorskip("tensorrt_rtx_bindings")
    return True, {name: set(found) for name, found in names_of(module).items()}


def _guarded(tree: ast.AST) -> set[str]:
    """Names that code asks for with ``hasattr`` or ``getattr``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    asked = [call.args[1] for call in calls if call.func.id in ("hasattr", "getattr") and len(call.args) > 1]  # type: ignore[attr-defined]
    return {str(word.value) for word in asked if isinstance(word, ast.Constant)}


GUARDED = set().union(*map(_guarded, TREES))


def _chain(node: ast.expr) -> list[str]:
    """``a.b.c`` as words; empty for what is no such chain."""
    if isinstance(node, ast.Name):
        return [node.id]
    inner = _chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*inner, node.attr] if inner and isinstance(node, ast.Attribute) else []


def _taken(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Class (``""`` is the module) and name of all that code takes of a package that it calls ``module``."""
    roots = {"module": [""]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            words = _chain(node.value)
            if words[:1] == ["module"] and len(words) == 2:
                roots[node.targets[0].id] = ["", words[1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (words := _chain(node)) and words[0] in roots:
            path = [*roots[words[0]], *words[1:]]
            yield path[-2], path[-1]


TAKEN = {each for tree in TREES for each in _taken(tree) if not each[1].startswith("__")}


def _members(kind: type) -> set[str]:
    """Attributes and methods that a class names."""
    names = {name for base in kind.__mro__[:-1] for name in {*vars(base), *getattr(base, "__annotations__", {})}}
    return {name for name in names if not name.startswith("_")}


def _missing(package: tuple[bool, Names], kind: str, wanted: set[str]) -> set[str]:
    """Names that a class of a package lacks, without those that edgeseg asks for before it takes them."""
    rtx, names = package
    if kind not in names and f"create{re.sub('[A-Z]', _lowered, kind.removeprefix('I'))}" in GUARDED:
        return set()  # what makes the class is asked for
    return wanted - names.get(kind, set()) - GUARDED - (set() if rtx else OF_RTX.get(kind, set()))


def _lowered(letter: re.Match[str]) -> str:
    return f"_{letter[0].lower()}"


def _class_of(name: str) -> str:
    """The class of the package for a protocol, or a class of the fake (what tests run through it is touched)."""
    name = name.removeprefix("_")
    known = {each for names in LISTS.values() for each in names}
    return CLASSES.get(name) or (name if name in known else f"I{name}")


def test_the_lists_are_of_the_versions_that_edgeseg_is_for() -> None:
    assert {name.removeprefix("tensorrt-").rpartition(".")[0] for name in LISTS} >= {
        "10.0",
        "10.3",
        "10.16.1",
        "11.1.0",
    }
    assert all(len(names) > 50 and "execute_async_v3" in names["IExecutionContext"] for names in LISTS.values())


PROTOCOLS = [name for name in _api.__all__ if name != "Severity"]
STAND_INS = [name for name, kind in vars(fakes).items() if name.startswith("_") and isinstance(kind, type)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_member_of_a_protocol_is_there(package: tuple[bool, Names], protocol: str) -> None:
    wanted = _members(getattr(_api, protocol))
    assert wanted
    assert _missing(package, _class_of(protocol), wanted) == set()


@pytest.mark.parametrize("stand_in", STAND_INS)
def test_the_fake_has_nothing_that_the_package_lacks(package: tuple[bool, Names], stand_in: str) -> None:
    wanted = _members(getattr(fakes, stand_in)) - THE_FAKES_OWN
    assert wanted
    assert _missing(package, _class_of(stand_in), wanted) == set()


def test_what_is_taken_of_the_module_is_there(package: tuple[bool, Names]) -> None:
    assert {("", "Builder"), ("MemoryPoolType", "WORKSPACE"), ("", "NetworkDefinitionCreationFlag")} <= TAKEN
    assert [each for each in sorted(TAKEN) if _missing(package, each[0], {each[1]})] == []


def test_what_is_said_to_be_of_rtx_alone_is_in_no_list() -> None:
    for kind, names in OF_RTX.items():
        for listed in LISTS.values():
            assert names & listed.get(kind, set()) == set()


def test_names_that_are_words_in_the_code_are_there(package: tuple[bool, Names]) -> None:
    rtx, names = package
    assert "STRONGLY_TYPED" in names["NetworkDefinitionCreationFlag"]
    assert {"INTERNAL_ERROR", "ERROR", "VERBOSE", "log"} <= names["ILogger"]
    assert {"INPUT", "OUTPUT"} <= names["TensorIOMode"]
    assert {"FLOAT", "HALF", "UINT8", "INT32", "INT64", "BOOL", "INT8"} <= names["DataType"]
    if rtx:
        assert set(_DIAGNOSTICS) <= names["EngineInvalidityDiagnostics"]


@pytest.mark.parametrize(
    ("version", "like"), [("10.3.0", "tensorrt-10.3.0"), ("11.1.0", "tensorrt-11.1.0.106"), ("1.7", "tensorrt-rtx")]
)
def test_the_enums_of_the_fake_are_those_of_its_version(version: str, like: str) -> None:
    module, _ = fake_tensorrt(version=version, name="tensorrt_rtx_bindings" if like == "tensorrt-rtx" else "tensorrt")
    names = LISTS[like] if like in LISTS else names_of(pytest.importorskip("tensorrt_rtx_bindings"))
    for name in ("BuilderFlag", "NetworkDefinitionCreationFlag", "MemoryPoolType", "DataType"):
        assert set(getattr(module, name).__members__) <= set(names[name]), name
    assert hasattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") == (
        "EXPLICIT_BATCH" in names["NetworkDefinitionCreationFlag"]
    )


def test_the_measure_itself() -> None:
    tree = ast.parse("flags = module.BuilderFlag\nif hasattr(flags, 'TF32'):\n    f(flags.TF32, module.Builder(x).y)")
    assert set(_taken(tree)) == {("", "BuilderFlag"), ("BuilderFlag", "TF32"), ("", "Builder")}
    assert _guarded(tree) == {"TF32"}
    assert _missing((False, {"A": {"b"}}), "A", {"b", "c"}) == {"c"}
    assert _missing((False, {}), "Runtime", {"get_engine_validity"}) == set()
    assert _missing((True, {}), "Builder", {"create_network"}) == {"create_network"}
    assert [_class_of(name) for name in ("_Engine", "CudaEngine", "_Builder", "BuilderConfig", "Runtime")] == [
        *("ICudaEngine", "ICudaEngine", "Builder", "IBuilderConfig", "Runtime")
    ]
