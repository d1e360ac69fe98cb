"""The description of a machine, from files laid out as a kernel does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.bench.machine import Machine, describe_machine, device_state
from edgeseg.bench.memory import peak_mib, resident_mib

JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
    "proc/meminfo": "MemTotal:       31250000 kB\nMemFree: 1 kB\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
    "var/lib/nvpmodel/status": "pmode:0003 fmode:quiet\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nX\n< POWER_MODEL ID=3 NAME=MODE_50W >\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1497600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1497600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1497600\n",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
    "sys/devices/system/cpu/cpu0/topology/core_id": "0\n",
    "sys/devices/system/cpu/cpu1/topology/physical_package_id": "0\n",
    "sys/devices/system/cpu/cpu1/topology/core_id": "0\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "run/.containerenv": "",
}
DESKTOP = {
    "proc/cpuinfo": "processor : 0\nmodel name\t: Some CPU @ 3.00GHz\ncpu MHz\t\t: 1200.000\n\ncpu MHz : 1400.0\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 1 2025\nGCC 12\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 4070\nIRQ: 1\n",
}


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_jetson_is_described(tmp_path: Path) -> None:
    found = describe_machine(lay_out(tmp_path, JETSON))
    assert found.board == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found.cpu == "ARM implementer 0x41 part 0xd42"
    assert found.os == "Ubuntu 22.04.4 LTS"
    assert found.power_mode == "nvpmodel 3 (MODE_50W)"
    assert (found.governor, found.cpu_mhz_max, found.clocks_locked) == ("schedutil", 1497.6, True)
    assert (found.physical_cores, found.cpu_quota, found.memory_mib) == (1, 1.5, 30517)
    assert found.container == "podman"
    state = device_state(tmp_path)
    assert (state.cpu_mhz, state.temperature_c) == (1497.6, 48.5)


def test_a_desktop_with_a_gpu_is_described(tmp_path: Path) -> None:
    found = describe_machine(lay_out(tmp_path, DESKTOP))
    assert (found.cpu, found.gpus, found.gpu_driver) == (
        "Some CPU @ 3.00GHz",
        ("NVIDIA GeForce RTX 4070",),
        "580.65.06",
    )
    assert (found.board, found.power_mode, found.clocks_locked, found.cpu_quota) == (None, None, None, None)
    assert device_state(tmp_path).cpu_mhz == 1300.0
    assert "NVIDIA GeForce RTX 4070" in found.line()


def test_nothing_readable_is_none_and_not_an_error(tmp_path: Path) -> None:
    found = describe_machine(tmp_path)
    assert (found.physical_cores, found.governor, found.gpus, found.container) == (None, None, (), None)
    assert found.opencv_threads >= 1
    assert device_state(tmp_path).temperature_c is None


def test_this_machine_survives_json() -> None:
    found = describe_machine()
    assert found.usable_cores is not None
    assert found.usable_cores >= 1
    assert Machine.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_differences_are_described_in_words() -> None:
    one = describe_machine()
    other = replace(one, cpu="another", gpus=("a GPU",), governor="powersave")
    assert one.differences(one) == ()
    assert one.differences(other) == (f"cpu is {one.cpu}, then another", f"gpus is {_words(one.gpus)}, then a GPU")
    assert any("governor" in text for text in one.differences(other, Machine.CONDITIONS))


def _words(gpus: tuple[str, ...]) -> str:
    return " and ".join(gpus) or "none"


def test_memory_peak_is_at_least_what_is_resident() -> None:
    now, peak = resident_mib(), peak_mib()
    if now is None or peak is None:
        pytest.skip("this system does not tell a process its memory")
    assert peak >= now > 0.0
