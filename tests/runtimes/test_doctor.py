"""What doctor finds: on this machine, on a made-up Jetson, and where everything is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeseg import _quiet
from edgeseg.doctor import probe_machine, probe_targets
from edgeseg.runtimes.registry import BUILT_IN
from edgeseg.runtimes.tensorrt import engine as tensorrt_engine


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
@pytest.mark.parametrize(
    ("release", "revision", "jetpack"),
    [("34", "1.1", "JetPack 5"), ("35", "6.0", "JetPack 5"), ("38", "2.0", "JetPack 7"), ("39", "2.0", "JetPack 7")],
)
def test_jetpacks_by_their_l4t(tmp_path: Path, release: str, revision: str, jetpack: str) -> None:
    file = jetson(tmp_path) / "etc" / "nv_tegra_release"
    file.write_text(f"# R{release} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64\n")
    assert probe_machine(tmp_path).jetpack == f"{jetpack} (L4T {release}.{revision})"


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
    found = probe_targets()
    assert list(found)[: len(BUILT_IN)] == [record.name for record in BUILT_IN]
    assert found["ort"].usable
    assert "CPUExecutionProvider" in found["ort"].devices
    for result in found.values():
        assert result.usable or result.reason, result


@pytest.mark.usefixtures("no_gpu")
def test_without_packages_each_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnxruntime", "openvino", "ncnn", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(tensorrt_engine, "package_version", lambda *names: "")
    for name, result in probe_targets().items():
        assert not result.usable, name
        assert "which is not installed" in result.reason
        assert "install" in result.advice
