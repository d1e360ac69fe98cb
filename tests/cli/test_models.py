"""`edgeseg models`: the table, one network's facts, JSON, and names that do not exist."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgeseg.models import list_models, model_spec
from edgeseg.models.count import count_macs
from edgeseg.models.facts import read_rows, row_of
from edgeseg.models.registry import build_on_meta
from tests.cli.conftest import Edgeseg


def test_table(edgeseg: Edgeseg) -> None:
    done = edgeseg("models", "espnet_c*")
    assert done.code == 0
    title, *rows, last = done.out.splitlines()
    assert title.split()[:4] == ["name", "system", "year", "params"]
    assert [row.split()[0] for row in rows] == list_models("espnet_c*")
    assert "512x1024" in rows[0]
    assert "height x width" in last


def test_a_plain_word_matches_inside(edgeseg: Edgeseg) -> None:
    found = json.loads(edgeseg("models", "c_p2", "--json", "--no-macs").out)
    assert [row["name"] for row in found] == ["espnet_c_p2_q3", "espnet_c_p2_q5", "espnet_c_p2_q8"]
    assert all(row["macs"] is None for row in found)


def test_every_network_is_listed_as_json(edgeseg: Edgeseg) -> None:
    done = edgeseg("models", "--json", "--no-macs")
    assert [row["name"] for row in json.loads(done.out)] == list_models()
    assert done.err == ""


def test_macs_grow_with_the_size(edgeseg: Edgeseg) -> None:
    small, large = (json.loads(edgeseg("models", "sinet", "--size", s, "--json").out) for s in ("64x64", "128x128"))
    assert small[0]["size"] == [64, 64]
    assert 3.5 < large[0]["macs"] / small[0]["macs"] < 4.5


def test_a_size_the_network_does_not_take_is_counted_at_its_own(edgeseg: Edgeseg) -> None:
    assert json.loads(edgeseg("models", "sinet", "--size", "50x50", "--json").out)[0]["size"] == [224, 224]


def test_one_network_has_every_fact(edgeseg: Edgeseg) -> None:
    done = edgeseg("models", "sinet")
    assert "paper: SINet" in done.out
    assert "divisor: 32" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["espnet_p2_q88"], "did you mean 'espnet_p2_q8'"),
        (["zzzz"], "`edgeseg models` lists them"),
        (["sinet", "--size", "x"], "size 'x' is not HEIGHTxWIDTH"),
    ],
)
def test_bad_input(words: list[str], message: str, edgeseg: Edgeseg) -> None:
    done = edgeseg("models", *words)
    assert done.code == 2
    assert message in done.sentence


def test_without_torch(edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list_models()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [row["name"] for row in json.loads(edgeseg("models", "--json").out)] == names
    assert "G at 224x224" in edgeseg("models", "sinet").out
    done = edgeseg("models", "--size", "64x64")
    assert done.code == 6
    assert "counting MACs at a size needs the package torch" in done.sentence
    assert "pip install 'edgeseg[export]'" in done.sentence


def test_listing_imports_no_torch() -> None:
    code = "import sys\nfrom edgeseg.cli import run\ncode = run(['models'])\nsys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert f"{len(list_models())} networks;" in done.stdout


def test_every_network_is_listed_with_its_macs(edgeseg: Edgeseg) -> None:
    rows = json.loads(edgeseg("models", "--json").out)
    assert [row["name"] for row in rows] == list_models()
    assert all(row["macs"] > 0 for row in rows)


# --- what is stored, against the registry


def test_stored_facts_are_those_of_the_registry() -> None:
    stored = read_rows()
    assert list(stored) == list_models(), "run python -m edgeseg.models.facts"
    for name, row in stored.items():
        assert {**row_of(model_spec(name)), "macs": row["macs"]} == row, "run python -m edgeseg.models.facts"


@pytest.mark.parametrize("name", ["sinet", "extremec3net", "pphumanseg_lite", "espnet_p2_q8", "pidnet_s"])
def test_stored_macs_are_those_counted(name: str) -> None:
    _macs_agree(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_all_stored_macs_are_those_counted(name: str) -> None:
    _macs_agree(name)


def _macs_agree(name: str) -> None:
    row = read_rows()[name]
    assert row["macs"] == count_macs(build_on_meta(name), model_spec(name).input_size), "python -m edgeseg.models.facts"


def test_what_cannot_be_counted_is_a_dash(edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one network once ended the whole list in a traceback."""

    def broken(network: object, size: object) -> int:
        raise AssertionError("Expected gradient function to be set")

    monkeypatch.setattr("edgeseg.models.count.count_macs", broken)
    assert "macs: - at 64x64" in edgeseg("models", "sinet", "--size", "64x64").out
    rows = json.loads(edgeseg("models", "sinet", "--size", "64x64", "--json").out)
    assert rows[0]["macs"] is None


def test_macs_of_a_head_whose_kernels_are_weights() -> None:
    """The counter hooks tensors with a gradient, and a view of a weight has none to hook."""
    name = next(name for name in list_models("mmseg_knet*"))
    assert count_macs(build_on_meta(name), (64, 64)) > 0
