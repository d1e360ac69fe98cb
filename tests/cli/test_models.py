"""`edgeseg models`: the table, one network's facts, JSON, and names that do not exist."""

from __future__ import annotations

import json
import sys

import pytest

from edgeseg.models import list_models
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
    ("words", "told"),
    [
        (["espnet_p2_q88"], "did you mean 'espnet_p2_q8'"),
        (["zzzz"], "`edgeseg models` lists them"),
        (["sinet", "--size", "x"], "size 'x' is not HEIGHTxWIDTH"),
    ],
)
def test_bad_input(words: list[str], told: str, edgeseg: Edgeseg) -> None:
    done = edgeseg("models", *words)
    assert done.code == 2
    assert told in done.sentence


def test_without_torch(edgeseg: Edgeseg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = edgeseg("models")
    assert done.code == 6
    assert "pip install 'edgeseg[export]'" in done.sentence
