"""Machine profiles: those that ship, files of them, and how bad files are refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import InputError, UnknownNameError
from edgeseg.graph.profile import DEFAULT_PROFILE, MachineProfile, load_profile, profile_names

RATES = ("dense", "channelwise", "interpolation", "bandwidth")


def test_the_default_profile_keeps_the_figures_that_rewrites_were_tuned_with() -> None:
    profile = load_profile(DEFAULT_PROFILE)
    assert profile.threads == 2
    assert [getattr(profile, rate) for rate in RATES] == [60e9, 12e9, 4e9, 10e9]
    assert profile.node_seconds == 3e-6


def test_common_classes_ship_and_name_their_source() -> None:
    assert profile_names() == ("arm-neon", "x86-avx2", "x86-avx512")
    for name in profile_names():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.channelwise < profile.dense
        assert ("Derived, not measured" in profile.source) != ("Measured" in profile.source)


def test_a_profile_reads_back_from_its_file(tmp_path: Path) -> None:
    profile = replace(load_profile("arm-neon"), name="board, 4 threads", bandwidth=1.25e9)
    file = tmp_path / "board.json"
    file.write_text(json.dumps({**profile.to_json(), "measurements": []}))
    assert load_profile(file) == load_profile(str(file)) == profile


def test_a_shipped_name_wins_over_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x86-avx2").write_text(json.dumps(replace(load_profile("arm-neon")).to_json()))
    monkeypatch.chdir(tmp_path)
    assert load_profile("x86-avx2").name == "x86-avx2"
    assert load_profile("./x86-avx2").name == "arm-neon"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown machine profile 'x86-avx51': did you mean 'x86-avx512'"):
        load_profile("x86-avx51")


def _changed(**changes: Any) -> str:
    return json.dumps({**load_profile(DEFAULT_PROFILE).to_json(), **changes})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "kind is missing"),
        ('{"kind": 1, "kind": 2}', "gives a name twice"),
        ("\ud800", "not UTF-8"),
        (_changed(kind="edgeseg-benchmark"), 'kind is "edgeseg-benchmark"; it must be one of edgeseg-machine-profile'),
        (_changed(schema_version=2), "schema_version is 2; it must be a whole number from 1 to 1"),
        (_changed(dense=0), "dense is 0; it must be a finite number from 1e"),
        (_changed(bandwidth="10e9"), 'bandwidth is "10e9"; it must be a finite number'),
        (_changed(node_seconds=-1e-6), "node_seconds is -1e-06; it must be a finite number from 0 to 1"),
        (_changed(threads=True), "threads is true; it must be a whole number"),
        (_changed(name="a\nb"), "name is"),
        (_changed(source=None), "source is null; it must be a text"),
        (_changed(source="a" * (1 << 20)), "too many for a machine profile"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as raised:
        load_profile(file)
    message = str(raised.value)
    assert reason in message
    assert str(file) in message
    assert message.endswith("expected a file of `edgeseg benchmark profile`")


@pytest.mark.parametrize("word", ["none.json", "folder/none"])
def test_a_missing_file_is_told(word: str) -> None:
    with pytest.raises(InputError, match=f"cannot read '{word}': no such file"):
        load_profile(word)


def test_every_field_is_written_and_needed() -> None:
    whole = load_profile(DEFAULT_PROFILE).to_json()
    assert set(asdict(load_profile(DEFAULT_PROFILE))) < set(whole)
    for name in whole:
        with pytest.raises(ValueError, match=f"{name} is missing"):
            MachineProfile.from_json({key: value for key, value in whole.items() if key != name})
