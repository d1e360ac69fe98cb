"""The GPUs of a machine: from a Jetson's files, a CUDA driver and an NVML that are none."""

from __future__ import annotations

import ast
import ctypes
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeseg.bench import gpus
from edgeseg.bench.compare import compare_reports
from edgeseg.bench.gpus import Gpu, GpuState, cuda_version, describe_gpus, gpu_states
from edgeseg.bench.machine import DeviceState, Machine, describe_machine, device_state
from edgeseg.bench.report import BenchmarkReport
from tests.bench.samples import a_machine, a_report
from tests.bench.test_machine import JETSON, lay_out

ORIN = {
    "sys/class/devfreq/13e40000.host1x/max_freq": "1\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1300500000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "611625000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": "3199000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
    "sys/class/thermal/thermal_zone5/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone5/temp": "51250\n",
}


class NVMLError(Exception):
    """NVML's error."""


def fake_nvml(monkeypatch: pytest.MonkeyPatch, *names: str, refuses: tuple[str, ...] = ()) -> list[str]:
    """Put a ``pynvml`` in place that manages GPUs of these names; gives the calls it was asked, in their order."""
    answers: dict[str, Any] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetCount": len(names),
        "nvmlDeviceGetCudaComputeCapability": (8, 9),
        "nvmlDeviceGetMemoryInfo": type("Memory", (), {"total": 12 << 30}),
        "nvmlDeviceGetPersistenceMode": 1,
        "nvmlDeviceGetEnforcedPowerLimit": 180_000,
        "nvmlDeviceGetPowerManagementDefaultLimit": 200_000,
        "nvmlDeviceGetTemperature": 44,
        "nvmlDeviceGetPowerUsage": 35_500,
    }
    module, asked = ModuleType("pynvml"), list[str]()

    def function(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            asked.append(name)
            if name in refuses:
                raise NVMLError(name)
            if name == "nvmlDeviceGetHandleByIndex":
                return arguments[0]
            if name == "nvmlDeviceGetName":
                return names[arguments[0]]
            if name.endswith("ClockInfo"):
                return {"NVML_CLOCK_SM": 3105, "NVML_CLOCK_MEM": 10501}[arguments[1]] // (1 + ("Max" not in name))
            return answers[name]

        return call

    vars(module).update({name: function(name) for name in (*answers, *HANDLED)})
    vars(module).update({name: name for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU")})
    vars(module).update(NVMLError=NVMLError, NVML_FEATURE_ENABLED=1)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return asked


HANDLED = (*("nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetClockInfo"),)


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_jetson_tells_its_limits_and_its_state(tmp_path: Path) -> None:
    root = lay_out(tmp_path, JETSON | ORIN)
    assert describe_gpus(root, drivers=False) == (
        Gpu("Jetson GPU", mhz_min=306.0, mhz_max=1300.5, memory_mhz_max=3199.0),
    )
    assert gpu_states(root, drivers=False) == (GpuState(611.625, 2133.0, 51.25),)
    assert device_state(root).gpus == (GpuState(611.625, 2133.0, 51.25),)


@pytest.mark.parametrize(("lowest", "locked"), [("1300500000", True), ("306000000", False)])
def test_clocks_are_locked_where_those_of_the_gpu_are_too(tmp_path: Path, lowest: str, locked: bool) -> None:
    files = JETSON | ORIN | {"sys/class/devfreq/17000000.gpu/min_freq": lowest}
    machine = describe_machine(lay_out(tmp_path, files))
    assert machine.clocks_locked is locked
    assert ("clocks locked" in machine.line()) == locked
    assert "1300.5 MHz" in machine.line()


def test_a_jetson_whose_memory_clock_is_roots_alone_tells_the_rest(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {name: text for name, text in ORIN.items() if "emc" not in name})
    assert [(gpu.mhz_max, gpu.memory_mhz_max) for gpu in describe_gpus(root, drivers=False)] == [(1300.5, None)]


@pytest.mark.usefixtures("no_nvml")
def test_the_cuda_driver_tells_multiprocessors_and_the_kernel_clocks(fake_gpu: ctypes.CDLL, tmp_path: Path) -> None:
    fake_gpu.fake_multiprocessors(16)
    assert describe_gpus(tmp_path) == (Gpu("Fake A", "8.7", 16, 8192),)
    assert cuda_version() == "12.6"
    found = describe_gpus(lay_out(tmp_path, ORIN))
    assert found == (Gpu("Fake A", "8.7", 16, 8192, 306.0, 1300.5, 3199.0),)
    assert str(found[0]) == ("Fake A, sm_87, 16 multiprocessors, 8192 MiB, 306 to 1300.5 MHz, memory 3199 MHz")


@pytest.mark.usefixtures("fake_gpu")
def test_nvml_tells_clocks_and_power_and_cuda_the_multiprocessors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = fake_nvml(monkeypatch, "Another", "Fake A")
    told = Gpu("Fake A", "8.9", 8, 12288, None, 3105, 10501, 180.0, 200.0, True)
    assert describe_gpus(tmp_path) == (replace(told, name="Another", multiprocessors=None), told)
    assert asked[-1] == "nvmlShutdown"
    assert gpu_states(tmp_path) == (GpuState(1552, 5250, 44, 35.5),) * 2


@pytest.mark.usefixtures("no_gpu")
def test_what_nvml_refuses_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refuses = ("nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPersistenceMode")
    fake_nvml(monkeypatch, "A", refuses=refuses)
    assert describe_gpus(tmp_path) == (Gpu("A", "8.9", None, None, None, 3105, 10501, None, 200.0, None),)
    fake_nvml(monkeypatch, "A", refuses=("nvmlDeviceGetHandleByIndex",))
    assert describe_gpus(tmp_path) == ()
    assert gpu_states(tmp_path) == ()
    asked = fake_nvml(monkeypatch, "A", refuses=("nvmlInit",))
    assert describe_gpus(tmp_path) == ()
    assert asked == ["nvmlInit"]


@pytest.mark.usefixtures("no_gpu", "no_nvml")
def test_a_machine_without_any_has_none(tmp_path: Path) -> None:
    assert describe_gpus(tmp_path) == ()
    assert gpu_states(tmp_path) == ()
    assert cuda_version() is None


def test_nvml_has_what_is_asked_of_it() -> None:
    nvml = pytest.importorskip("pynvml")
    tree = ast.parse(Path(gpus.__file__).read_text(encoding="utf-8"))
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("nvml", "pynvml")
    }
    assert len(named) > 10
    assert {name for name in named if not hasattr(nvml, name)} == set()


def test_reports_hold_the_gpus_and_files_of_before_are_read() -> None:
    machine = a_machine(gpu_details=(Gpu("A", "8.7", 8, mhz_min=306.0, mhz_max=918.0),))
    report = a_report(machine=machine, before=DeviceState(0.1, gpus=(GpuState(306.0),)))
    data = json.loads(json.dumps(report.to_json()))
    again = BenchmarkReport.from_json(data)
    assert (again.machine, again.before) == (report.machine, report.before)
    for name in ("gpu_details", "cuda", "tensorrt"):
        del data["machine"][name]
    del data["before"]["gpus"]
    read = BenchmarkReport.from_json(data)
    assert (read.machine.gpu_details, read.machine.cuda, read.before.gpus) == ((), None, ())
    with pytest.raises(KeyError):
        Machine.from_json({"cpu": "x"})


def test_compare_tells_other_clocks_of_the_gpu() -> None:
    slow, fast = (a_machine(gpu_details=(Gpu("A", mhz_min=low, mhz_max=918.0),)) for low in (306.0, 918.0))
    notes = compare_reports([a_report(machine=slow)], [a_report(machine=fast)]).notes
    assert "gpu_details is A, 306 to 918 MHz, then A, 918 MHz" in notes
