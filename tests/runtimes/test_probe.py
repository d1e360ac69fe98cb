"""What doctor finds: on this machine, on a made-up Jetson, and where everything is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeseg import _quiet
from edgeseg.runtimes import probe
from edgeseg.runtimes.probe import probe_machine, probe_targets
from edgeseg.targets import TARGETS
from tests.runtimes.fakes import FakeTensorRT


def jetson(root: Path) -> Path:
    """Files of a Jetson Orin in a container limited to 2 GiB."""
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes asimdhp asimddp\nCPU part\t: 0xd42\n",
        "proc/meminfo": "MemTotal:        8000000 kB\nMemAvailable:    4000000 kB\n",
        "sys/fs/cgroup/memory.max": "2147483648\n",
        "sys/fs/cgroup/memory.current": "1073741824\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.usefixtures("fake_gpu")
def test_a_jetson(tmp_path: Path) -> None:
    machine = probe_machine(jetson(tmp_path))
    assert machine.jetpack == "JetPack 6 (L4T 36.4.3)"
    assert machine.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.cpu_flags == ("asimd", "asimdhp", "asimddp")
    assert (machine.memory_total, machine.memory_available) == (2 << 30, 1 << 30)
    assert [str(gpu) for gpu in machine.gpus] == ["Fake A, sm_87"]
    assert machine.cuda == "12.6"


@pytest.mark.usefixtures("no_gpu")
def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    machine = probe_machine(tmp_path)
    assert (machine.memory_total, machine.memory_available, machine.cpu_flags) == (None, None, ())
    assert (machine.gpus, machine.cuda, machine.jetpack, machine.board) == ((), "", "", "")


def test_this_machine() -> None:
    machine = probe_machine()
    assert machine.python == ".".join(map(str, sys.version_info[:3]))
    assert machine.cores is None or machine.cores >= 1
    if sys.platform == "linux":
        assert machine.memory_total is not None
        assert machine.memory_available is not None
        assert 0 < machine.memory_available <= machine.memory_total


def test_telemetry_is_off_and_who_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quiet, "_ours", {"NNCF_CI"})
    monkeypatch.setenv("NNCF_CI", "1")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    told = probe_machine().telemetry
    assert told.startswith("onnxruntime on (ORT_DISABLE_TELEMETRY=0 in the environment), nncf off (edgeseg), openvino ")


@pytest.mark.usefixtures("no_gpu")
def test_every_target_is_looked_at() -> None:
    found = {result.target: result for result in probe_targets()}
    assert list(found)[: len(TARGETS)] == list(TARGETS)
    assert found["ort"].usable
    assert "CPUExecutionProvider" in found["ort"].devices
    for result in found.values():
        assert result.usable or result.reason, result


@pytest.mark.usefixtures("no_gpu")
def test_without_packages_each_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(probe, "package_version", lambda *names: "")
    for result in probe_targets():
        assert not result.usable
        assert "which is not installed" in result.reason
        assert "install" in result.advice


@pytest.mark.usefixtures("tensorrt")
def test_tensorrt_on_a_gpu(tensorrt: FakeTensorRT) -> None:
    result = next(result for result in probe_targets() if result.target == "trt")
    assert (result.usable, result.engine, result.devices) == (True, "tensorrt 10.3.0", ("Fake A, sm_87",))
    assert tensorrt.calls == []


@pytest.mark.usefixtures("tensorrt", "no_gpu")
def test_tensorrt_without_a_gpu_says_what_is_missing() -> None:
    result = next(result for result in probe_targets() if result.target == "trt")
    assert (result.usable, result.engine) == (False, "tensorrt 10.3.0")
    assert "no NVIDIA driver" in result.reason
    assert "install the driver" in result.advice


def test_a_probe_that_breaks_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def explodes() -> probe.TargetProbe:
        raise ValueError("odd driver")

    monkeypatch.setattr(probe, "_probe_openvino", explodes)
    result = next(result for result in probe_targets() if result.target == "openvino")
    assert (result.usable, result.reason) == (False, "looking at it failed: ValueError: odd driver")


def test_several_onnxruntimes_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "package_version", lambda *names: "1.23.0" if "onnxruntime" in names[0] else "")
    result = next(result for result in probe_targets() if result.target == "ort")
    assert "keep one of them" in result.advice
