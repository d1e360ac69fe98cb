"""Which engines there are: names, aliases, suggestions, and what other packages register, sound or broken."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.cli import spread_targets
from edgeseg.doctor import probe_targets
from edgeseg.errors import TargetUnavailableError, UnknownNameError
from edgeseg.runtimes import Engine, engine, engines, resolve_target
from edgeseg.runtimes.registry import BUILT_IN, GROUP, forget_engines, refused_engines
from tests.packages import environment, install


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("ort", "ort"),
        ("ONNXRuntime", "ort"),
        ("onnx", "ort"),
        ("ov", "openvino"),
        ("openvino", "openvino"),
        ("tensorrt", "trt"),
        ("engine", "trt"),
        ("rtx", "trt-rtx"),
        (" trt-rtx ", "trt-rtx"),
        ("pytorch", "torch"),
    ],
)
def test_aliases(word: str, name: str) -> None:
    assert resolve_target(word) == name


@pytest.mark.parametrize(
    ("word", "suggestion"), [("opnvino", "openvino"), ("onxruntime", "onnxruntime"), ("tensort", "tensorrt")]
)
def test_unknown_words_get_a_suggestion(word: str, suggestion: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean .*'{suggestion}'"):
        resolve_target(word)


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        (
            "export n --target ort openvino trt-rtx --out b",
            "export n --target ort --target openvino --target trt-rtx --out b",
        ),
        ("predict --target ort bundle picture", "predict --target ort bundle picture"),
        ("predict b p --target openvino", "predict b p --target openvino"),
        ("benchmark b -t ort ov --json f", "benchmark b -t ort --target ov --json f"),
        ("export n --target ort opnvino", "export n --target ort --target opnvino"),
        ("verify --target ort --target ov b", "verify --target ort --target ov b"),
    ],
)
def test_several_words_after_one_flag(given: str, spread: str) -> None:
    assert spread_targets(given.split()) == spread.split()


# --- engines of other packages


@pytest.mark.usefixtures("toy_engine")
@pytest.mark.parametrize("word", ["Toy", "toy", " TOY ", "reference", "Reference"])
def test_a_registered_engine_is_found_whatever_the_case(word: str) -> None:
    assert resolve_target(word) == "Toy"
    assert engine(word).packages == ("edgeseg-toy-engine",)
    assert [record.name for record in engines()][-1] == "Toy"


@pytest.mark.usefixtures("toy_engine")
@pytest.mark.parametrize("word", ["Toy", "TOY", "reference"])
def test_a_registered_target_may_come_after_the_first(word: str) -> None:
    for first in (["--target", "ort"], ["-t", "ort"], ["--target=ort"]):
        assert spread_targets(["export", "n", *first, word])[-2:] == ["--target", word]
        assert spread_targets(["export", "n", "--target", word, "ort"])[-2:] == ["--target", "ort"]


@pytest.mark.usefixtures("toy_engine")
def test_suggestions_know_registered_engines() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'reference'"):
        resolve_target("referense")


def test_a_callable_may_give_the_record(site: Path) -> None:
    install_engine(site, "made", "made_engine:make")
    assert engine("made").description == "somebody's"


def install_engine(site: Path, target: str, value: str, *, name: str = "made", aliases: str = "()") -> None:
    """A package with one entry point, whose record has `name`."""
    source = (
        "from edgeseg.runtimes import Engine, Probe\n"
        f'ENGINE = Engine(name={name!r}, aliases={aliases}, description="somebody\'s", open=None, probe=None)\n'
        "def make():\n    return ENGINE\n"
        "def raises():\n    raise RuntimeError('no licence\\nand a page on licences')\n"
        "def ends():\n    raise SystemExit(3)\n"
    )
    install(site, f"edgeseg-{target}", {GROUP: {target: value}}, modules={"made_engine": source})


REFUSED = {
    "no such module": ("made", "no_such_module:ENGINE", "made", "()", r"ModuleNotFoundError: .*; repair or uninstall"),
    "no such object": ("made", "made_engine:OTHER", "made", "()", r"failed \(AttributeError: .*; repair or uninstall"),
    "no engine": ("made", "made_engine:Probe", "made", "()", r"'made_engine:Probe' failed \(TypeError: "),
    "no callable": ("made", "made_engine:__name__", "made", "()", "gave str, expected an edgeseg Engine; update"),
    "something else": ("made", "builtins:dict", "made", "()", "gave dict, expected an edgeseg Engine; update"),
    "raises": ("made", "made_engine:raises", "made", "()", r"failed \(RuntimeError: no licence\); repair"),
    "ends the process": ("made", "made_engine:ends", "made", "()", r"failed \(SystemExit: 3\); repair"),
    "another name": ("made", "made_engine:ENGINE", "Made", "()", "its record is named 'Made', expected the entry"),
    "a taken alias": (
        "made",
        "made_engine:ENGINE",
        "made",
        "('ONNX',)",
        "its alias 'ONNX' belongs to the target 'ort'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_a_package_is_one_sentence(case: str, site: Path) -> None:
    target, value, name, aliases, sentence = REFUSED[case]
    install_engine(site, target, value, name=name, aliases=aliases)
    with pytest.raises(TargetUnavailableError, match=sentence) as caught:
        engine("made")
    assert str(caught.value).startswith("the target 'made' of edgeseg-made 0.1.0 cannot be used: ")
    assert "\n" not in str(caught.value)
    assert list(refused_engines()) == ["made"]
    assert engines() == BUILT_IN
    found = probe_targets()
    assert not found["made"].usable
    assert found["made"].reason.startswith("the target 'made' of edgeseg-made 0.1.0")
    assert found["made"].advice
    assert found["ort"].usable


@pytest.mark.parametrize("name", ["ort", "ORT", "tensorrt"])
def test_a_name_of_edgesegs_own_stays_edgesegs(name: str, site: Path) -> None:
    install_engine(site, name, "made_engine:ENGINE", name=name)
    assert engine(name) in BUILT_IN
    (key,) = refused_engines()
    assert key == f"{name} (edgeseg-{name} 0.1.0)"
    assert f"its name '{name}' belongs to the target '{engine(name).name}'; rename" in refused_engines()[key]
    assert probe_targets()["ort"].usable


def test_of_two_packages_with_one_name_the_second_is_refused(site: Path, toy_engine: Engine) -> None:
    source = (site / "edgeseg_toy_engine" / "engine.py").read_text().replace('"Toy"', '"toy"')
    install(site, "edgeseg-zoo", {GROUP: {"toy": "zoo:ENGINE"}}, modules={"zoo": source})
    forget_engines()
    assert engine("toy").name == "Toy"
    assert list(refused_engines()) == ["toy (edgeseg-zoo 0.1.0)"]


def test_a_probe_that_is_none_is_an_answer(site: Path) -> None:
    install_engine(site, "made", "made_engine:ENGINE")  # its probe is None
    found = probe_targets()
    assert (found["made"].usable, found["made"].reason[:37]) == (False, "looking at it failed: TypeError: 'Non")
    wrong = dataclasses.replace(engine("made"), probe=lambda: "fine")  # type: ignore[arg-type,return-value]
    assert wrong.look().reason == "looking at it gave str, expected edgeseg's Probe"


def test_a_built_in_target_loads_no_package(site: Path) -> None:
    marker = site / "loaded"
    source = f"open({str(marker)!r}, 'w').close()\n"
    install(site, "edgeseg-loud", {GROUP: {"loud": "loud:ENGINE"}}, modules={"loud": source})
    assert engine("openvino").name == "openvino"
    assert not marker.exists()
    assert "loud" in refused_engines()
    assert marker.exists()


def test_records_import_no_engine(toy_engine: Engine, site: Path) -> None:
    script = (
        "import sys; from edgeseg.runtimes import engines; engines()\n"
        "heavy = {'onnxruntime', 'openvino', 'tensorrt', 'tensorrt_rtx_bindings', 'torch', 'onnx', 'cv2'}\n"
        "print(sorted(heavy & set(sys.modules)), engines()[-1].name)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(site), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] Toy\n", "")
