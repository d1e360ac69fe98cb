"""Measuring a machine profile: what comes back reads back. No rate is asserted beyond being one."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgeseg.bench.profile import Figure, MeasuredProfile, machine_class, measure_profile, save_profile
from edgeseg.errors import TargetUnavailableError, UsageError
from edgeseg.graph.profile import MachineProfile, load_profile

FIGURES = {"dense_3x3", "dense_1x1", "channelwise", "interpolation", "bandwidth", "node_seconds"}


@pytest.fixture(scope="module")
def measured() -> MeasuredProfile:
    """A measurement as short as it gets."""
    return measure_profile(name="here", threads=2, seconds=0.0, map_mib=1)


def test_every_figure_is_measured_with_one_thread_and_with_all(measured: MeasuredProfile) -> None:
    assert [taken.threads for taken in measured.measurements] == [1, 2]
    for taken in measured.measurements:
        assert set(taken.figures) == FIGURES
        assert all(figure.median > 0.0 and figure.spread >= 0.0 for figure in taken.figures.values())
        assert all(figure.repeats == 5 for figure in taken.figures.values())


def test_the_profile_holds_the_rates_of_all_threads(measured: MeasuredProfile) -> None:
    profile, most = measured.profile, measured.measurements[-1]
    assert (profile.name, profile.threads) == ("here", 2)
    for name in ("channelwise", "interpolation", "bandwidth", "node_seconds"):
        assert getattr(profile, name) == most.figures[name].median
    rates = [most.figures[name].median for name in ("dense_3x3", "dense_1x1")]
    assert min(rates) <= profile.dense <= max(rates)
    assert profile.source.startswith("Measured by `edgeseg benchmark profile`")
    assert measured.machine.cpu in profile.source


def test_what_is_written_reads_back(measured: MeasuredProfile, tmp_path: Path) -> None:
    save_profile(tmp_path / "here.json", measured)
    assert load_profile(tmp_path / "here.json") == measured.profile


def test_one_thread_is_measured_once() -> None:
    alone = measure_profile(threads=1, seconds=0.0, map_mib=1)
    assert [taken.threads for taken in alone.measurements] == [1]
    assert alone.profile.name == f"{machine_class()}, 1 thread"


def test_what_may_not_repeat_is_warned_of(measured: MeasuredProfile) -> None:
    machine = replace(measured.machine, usable_cores=4)
    calm = {name: Figure(1e9, 0.01, 5) for name in FIGURES}
    taken = replace(measured.measurements[0], figures=calm)
    still = replace(measured, machine=machine, measurements=(taken,), load=1.0)
    assert still.warnings == ()
    wide = replace(taken, figures={**calm, "bandwidth": Figure(1e9, 0.5, 5)})
    assert replace(still, measurements=(wide,), load=3.0).warnings == (
        "the machine was busy before measuring (load average 3.00)",
        "with 1 thread the quartiles of bandwidth lie far apart",
    )


@pytest.mark.parametrize(
    "wrong",
    [{"threads": 0}, {"threads": 5000}, {"map_mib": 0}, {"seconds": -1.0}, {"name": ""}, {"name": "a\nb"}],
    ids=str,
)
def test_what_a_profile_cannot_hold_is_refused(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # before anything is measured
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))} .*must be"):
        measure_profile(**wrong)


def test_without_onnx_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(TargetUnavailableError, match=r"measuring a machine profile needs the package onnx.*export"):
        measure_profile(seconds=0.0, map_mib=1)


@pytest.mark.parametrize(
    ("architecture", "flags", "name"),
    [
        ("x86_64", "fpu sse2 avx avx2 avx512f avx512bw", "x86-avx512"),
        ("AMD64", "fpu sse2 avx avx2", "x86-avx2"),
        ("x86_64", "fpu sse2", "x86"),
        ("x86_64", None, "x86"),
        ("aarch64", None, "arm-neon"),
        ("arm64", None, "arm-neon"),
        ("riscv64", None, "riscv64"),
    ],
)
def test_the_class_of_a_machine(
    architecture: str, flags: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    if flags is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert machine_class(tmp_path) == name


def test_the_file_holds_what_it_was_made_of(measured: MeasuredProfile) -> None:
    data = measured.to_json()
    assert MachineProfile.from_json(data) == measured.profile
    assert data["measurements"] == [asdict(taken) for taken in measured.measurements]
    assert data["machine"]["cpu"] == measured.machine.cpu
