"""Records that are made are of the form of those that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg.models import create_model
from tests.goldens.golden import worst_error
from tests.goldens.make import FOLDER, main, make_record
from tests.goldens.runner import run_record


@pytest.mark.parametrize("name", ["espnet_c_p2_q3", "fast_scnn"])
def test_a_record_of_our_own_network_is_the_published_one(name: str) -> None:
    wanted = json.loads((FOLDER / f"{name}.json").read_text())
    made = make_record(create_model(name), name, wanted["input"]["shape"], system=wanted["system"])
    assert [entry[:2] for entry in made["state"]] == [entry[:2] for entry in wanted["state"]]
    assert made["params"] == wanted["params"]
    assert made.keys() >= {"name", "system", "params", "state", "input", "outputs"}


def test_a_made_record_runs_as_the_others_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["tests.models.test_golden_make:factory", "espnet_c_p2_q3", "--shape", "1x3x64x96", "--out", str(tmp_path)])
    file = Path(capsys.readouterr().out.strip())
    record = json.loads(file.read_text())
    assert worst_error(record, run_record(record)) <= 1e-6


def factory() -> object:
    """A published implementation, for want of one: our own."""
    return create_model("espnet_c_p2_q3")
