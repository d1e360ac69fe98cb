"""``edgeseg benchmark``: what it prints, writes and ends with. No timing is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from edgeseg.bench import harness, load_reports, save_reports
from edgeseg.bench.report import BenchmarkReport
from edgeseg.cli.benchmark import benchmark_app
from edgeseg.errors import (
    EdgesegError,
    InputError,
    PartialFailureError,
    RegressionError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from tests.bench.samples import a_machine, a_report, latencies
from tests.cli.conftest import Edgeseg
from tests.runtimes.bundles import make_tiny_bundle

app = typer.Typer()
app.add_typer(benchmark_app, name="benchmark")


def run(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "120", "TERM": "dumb"}).invoke(app, ["benchmark", *map(str, words)])


def fails_with(kind: type[EdgesegError], *words: object) -> str:
    result = run(*words)
    assert type(result.exception) is kind, (result.exception, result.output)
    return str(result.exception)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """Replace measuring by invented figures; the target ``trt`` is always lacking."""
    calls: list[tuple[str, dict[str, object]]] = []

    def measure(bundle: Path, target: str, **options: object) -> BenchmarkReport:
        calls.append((target, options))
        if target == "trt":
            raise TargetUnavailableError("no TensorRT here; install it")
        return a_report(target=target)

    monkeypatch.setattr(harness, "benchmark", measure)
    return calls


def test_help_shows_the_options_and_names_compare() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    assert all(word in shown.output for word in ("--target", "--min-samples", "--in-process", "benchmark compare"))
    assert "--max-regression" in run("compare", "--help").output
    assert run().exit_code == 2


def test_a_real_bundle_end_to_end(tmp_path: Path) -> None:
    bundle, file = make_tiny_bundle(tmp_path).path, tmp_path / "out" / "a.json"
    result = run(bundle, "--threads", 1, "--min-samples", 3, "--seconds", 0, "--save", file)
    assert result.exit_code == 0, (result.output, result.exception)
    for word in (
        "tiny on ort",
        "p50 [95 % CI]",
        "decode",
        "infer",
        "total",
        "peak",
        "machine:",
        "CPUExecutionProvider",
    ):
        assert word in result.output
    (report,) = load_reports(file)
    assert report.stages["total"].n == 3
    again = run("compare", file, file)
    assert again.exit_code == 0
    assert "no difference" in again.output


@pytest.mark.parametrize(
    "words", [("--target", "ort,openvino"), ("--target", "onnxruntime", "--target", "ov"), ("--target", "ort, ov,ort")]
)
def test_several_targets(asked: list[tuple[str, dict[str, object]]], words: tuple[str, ...]) -> None:
    result = run("a.edgeseg", *words)
    assert result.exit_code == 0
    assert [target for target, _ in asked] == ["ort", "openvino"]
    assert "tiny on openvino" in result.output


def test_options_reach_the_harness(asked: list[tuple[str, dict[str, object]]]) -> None:
    run("a.edgeseg", "--threads", 3, "--device", "GPU", "--precision", "f16", "--min-samples", 2000, "--in-process")
    (call,) = asked
    assert call[0] == "ort"
    expected = {"threads": 3, "device": "GPU", "precision": "f16", "min_samples": 2000, "max_samples": 2000}
    assert call[1].items() >= {**expected, "in_process": True, "images": None}.items()


def test_run_may_be_written_out_and_quiet_is_quiet(asked: list[tuple[str, dict[str, object]]], tmp_path: Path) -> None:
    result = run("run", "a.edgeseg", "--quiet", "--save", tmp_path / "a.json")
    assert result.output == ""
    assert len(load_reports(tmp_path / "a.json")) == len(asked) == 1


def test_one_lacking_target_does_not_lose_the_others(
    asked: list[tuple[str, dict[str, object]]], tmp_path: Path
) -> None:
    message = fails_with(PartialFailureError, "a.edgeseg", "--target", "trt,ort", "--save", tmp_path / "a.json")
    assert "trt" in message
    assert [report.target for report in load_reports(tmp_path / "a.json")] == ["ort"]
    assert "no TensorRT here" in fails_with(TargetUnavailableError, "a.edgeseg", "--target", "trt")
    assert len(asked) == 3


def test_an_unknown_target_is_refused_before_measuring(asked: list[tuple[str, dict[str, object]]]) -> None:
    assert "did you mean" in fails_with(UnknownNameError, "a.edgeseg", "--target", "ort,openvine")
    assert not asked


def test_compare_ends_with_ten_only_for_a_regression(tmp_path: Path) -> None:
    a, b, out = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    save_reports(a, [a_report({"total": latencies(10.0)})])
    save_reports(b, [a_report({"total": latencies(12.0, seed=4)})])
    message = fails_with(RegressionError, "compare", a, b, "--save", out)
    assert "tiny on ort" in message
    assert '"slower"' in out.read_text()
    assert run("compare", a, b, "--max-regression", 30).exit_code == 0
    faster = run("compare", b, a)
    assert faster.exit_code == 0
    assert "faster" in faster.output
    assert run("compare", b, a, "--quiet").output == ""


def test_compare_refuses_other_machines_and_files_that_are_none(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    save_reports(a, [a_report({"total": list(np.full(20, 5.0))})])
    save_reports(b, [a_report({"total": list(np.full(20, 5.0))}, machine=a_machine(cpu="another [CPU]"))])
    assert "--any-machine" in fails_with(UsageError, "compare", a, b)
    allowed = run("compare", a, b, "--any-machine")
    assert allowed.exit_code == 0
    assert "another [CPU]" in allowed.output
    b.write_text("{")
    assert "b.json" in fails_with(InputError, "compare", a, b)
    assert "gone.json" in fails_with(InputError, "compare", a, tmp_path / "gone.json")


def test_fewer_frames_than_the_default_are_what_was_asked_for(tmp_path: Path, edgeseg: Edgeseg) -> None:
    bundle, report = make_tiny_bundle(tmp_path), tmp_path / "r.json"
    few = ("--max-samples", 7, "--seconds", 0, "--in-process", "--save", report)
    assert edgeseg("benchmark", bundle.path, *few).code == 0
    assert len(load_reports(report)[0].samples["total"]) == 7
    done = edgeseg("benchmark", bundle.path, *few, "--min-samples", 9)
    assert done.code == 2
    assert "min_samples 9 and max_samples 7" in done.sentence


def test_json_goes_to_standard_output_as_in_every_command(tmp_path: Path, edgeseg: Edgeseg) -> None:
    bundle, file = make_tiny_bundle(tmp_path), tmp_path / "r.json"
    few = ("--max-samples", 3, "--seconds", 0, "--in-process")
    done = edgeseg("benchmark", bundle.path, *few, "--json", "--save", file)
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads(file.read_text())
    compared = edgeseg("benchmark", "compare", file, file, "--json")
    assert json.loads(compared.out)["kind"] == "edgeseg-benchmark-comparison"
