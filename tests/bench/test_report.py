"""The benchmark file: what goes in comes out, and what is not one is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeseg.bench.machine import DeviceState
from edgeseg.bench.report import SCHEMA_VERSION, Warmup, from_json, load_reports, save_reports, to_json
from edgeseg.errors import InputError
from edgeseg.runtimes.times import EngineTimes
from tests.bench.samples import a_report


def as_data() -> dict[str, Any]:
    report = a_report(engine=EngineTimes((1.0,), 1.0, (0.1,)))
    data: dict[str, Any] = json.loads(json.dumps(to_json([report])))
    return data


def test_a_file_survives_the_round_trip(tmp_path: Path) -> None:
    times = EngineTimes((1.25, 1.5), 1.125, (0.25, 0.5))
    reports = a_report(), a_report(target="openvino", engine=times)
    save_reports(tmp_path / "a.json", reports)
    once = load_reports(tmp_path / "a.json")
    save_reports(tmp_path / "b.json", once)
    assert load_reports(tmp_path / "b.json") == once
    assert [report.target for report in once] == ["ort", "openvino"]
    assert once[0].samples["infer"] == pytest.approx(reports[0].samples["infer"], abs=5.1e-5)  # kept to 0.1 µs
    assert once[0].machine == reports[0].machine
    assert (once[0].engine, once[1].engine) == (None, times)
    assert once[0].source_sizes == ((48, 96),)


def test_summaries_follow_the_order_of_the_stages_and_are_written() -> None:
    report = a_report({"total": [3.0], "postprocess": [0.5], "decode": [1.0], "infer": [1.0], "pre": [0.5]})
    assert list(report.stages) == ["decode", "pre", "infer", "postprocess", "total"]
    data = report.to_json()
    assert data["stages"]["postprocess"]["p50"] == 0.5
    assert data["throughput_fps"] == pytest.approx(1 / 0.6)
    assert "order statistics" in data["ci_method"]


def test_keys_of_later_minor_versions_are_ignored() -> None:
    data = as_data()
    data["reports"][0]["novel"] = data["reports"][0]["session"]["novel"] = data["reports"][0]["machine"]["novel"] = 1
    assert from_json(data)[0].target == "ort"


def test_a_file_of_version_1_is_read_with_its_stage_of_another_name() -> None:
    data = json.loads(json.dumps(to_json([a_report({"total": [3.0], "postprocess": [0.5]})])))
    samples = data["reports"][0]["samples"]
    samples["tail"] = samples.pop("postprocess")
    assert from_json({**data, "schema_version": 1})[0].samples == {"total": (3.0,), "postprocess": (0.5,)}


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(InputError, match=f"version {SCHEMA_VERSION + 1}.*update edgeseg"):
        from_json({**as_data(), "schema_version": SCHEMA_VERSION + 1})


@pytest.mark.parametrize("version", [None, "1", True])
def test_a_file_without_a_version_is_refused(version: object) -> None:
    with pytest.raises(InputError, match="schema_version"):
        from_json({**as_data(), "schema_version": version})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples", {}),
        ("samples", {"total": []}),
        ("samples", {"total": [1.0], "infer": [1.0, 2.0]}),
        ("samples", {"total": [-1.0]}),
        ("samples", {"total": [float("nan")]}),
        ("samples", {"total": "abc"}),
        ("session", {}),
        ("bundle", None),
        ("load_ms", "soon"),
        ("source_sizes", [[1]]),
        ("warmup", {"frames": 1}),
    ],
)
def test_a_garbled_field_is_one_sentence(key: str, value: object) -> None:
    data = as_data()
    data["reports"][0][key] = value
    with pytest.raises(InputError, match="lacks or garbles") as caught:
        from_json(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"kind": "edgeseg-benchmark"}', "\x00\xff", "[" * 100_000]
)
def test_a_file_that_is_no_benchmark_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"odd\.json"):
        load_reports(file)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json.*no such file"):
        load_reports(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="directory"):
        load_reports(tmp_path)


def test_no_reports_are_refused() -> None:
    with pytest.raises(InputError, match="no reports"):
        from_json({**as_data(), "reports": []})


def test_warnings_say_why_figures_may_not_repeat() -> None:
    steady = a_report({"total": [10.0] * 40}, before=DeviceState(0.0))
    assert steady.warnings == ()
    shaky = a_report(
        {"total": [10.0] * 20 + [12.0] * 20},
        warmup=Warmup(200, 3.0, 5, 0.1, stable=False),
        before=DeviceState(load_average=1000.0),
    )
    text = " ".join(shaky.warnings)
    assert all(word in text for word in ("stable", "1.20 times", "busy"))


def test_the_schema_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "benchmark-schema.md").read_text(encoding="utf-8")
    (report,) = as_data()["reports"]
    nested = [
        report["machine"],
        report["memory"],
        report["warmup"],
        report["settings"],
        report["session"],
        report["bundle"],
        report["engine"],
    ]
    keys = {*report, *report["stages"]["total"], *report["before"], *(key for part in nested for key in part)}
    assert sorted(key for key in keys if f"`{key}`" not in text) == []
