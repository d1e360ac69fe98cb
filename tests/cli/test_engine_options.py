"""Options of an engine on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.cli.engine_options import runtime_options
from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.runtimes import RuntimeOptions
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import make_tiny_bundle


def test_every_kind_of_value_is_read() -> None:
    words = ["cuda_graph=no", "zero_copy=Yes", "builder_level=5", "hint=latency", "provider_options.a.b=c=d"]
    found = runtime_options(words, threads=2, device=None)
    options = {"cuda_graph": False, "zero_copy": True, "builder_level": 5, "hint": "latency", "threads": 2}
    assert found == RuntimeOptions(**options, provider_options={"a.b": "c=d"})  # type: ignore[arg-type]
    assert runtime_options(None) == RuntimeOptions()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cuda_graph", "has no value; write NAME=VALUE"),
        ("cuda_graph=", "has no value; write NAME=VALUE"),
        ("cuda_graph=2", "cuda_graph is '2'; it must be yes or no"),
        ("builder_level=much", "builder_level is 'much'; it must be a whole number"),
        ("threads=3", "threads is given twice; give it once"),
    ],
)
def test_what_cannot_be_is_one_sentence(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        runtime_options([word], threads=2)


@pytest.mark.parametrize("name", ["cuda_grahp", "provider_options", "provider_options."])
def test_an_option_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown engine option"):
        runtime_options([f"{name}=1"])


def test_commands_pass_them_to_the_engine(tmp_path: Path, edgeseg: Edgeseg) -> None:
    bundle, saved = make_tiny_bundle(tmp_path), tmp_path / "report.json"
    few = ["--in-process", "--max-samples", "1", "--seconds", "0", "--save", saved]
    assert edgeseg("benchmark", bundle.path, "--engine-option", "threads=1", *few).code == 0
    assert json.loads(saved.read_text())["reports"][0]["options"] == {"threads": 1}
    said = "the ort target has no use for cuda_graph=False"
    assert said in edgeseg("benchmark", bundle.path, "--engine-option", "cuda_graph=no", *few).sentence
    sample = bundle.file("sample.png")
    assert said in edgeseg("predict", bundle.path, sample, "--engine-option", "cuda_graph=no").sentence
    folders = ["--images", bundle.path, "--labels", bundle.path]
    assert said in edgeseg("eval", bundle.path, *folders, "--engine-option", "cuda_graph=no").sentence
