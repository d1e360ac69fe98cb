"""The machine a latency was measured on: processor, memory, clocks, power mode, GPU, and the versions that matter.

Everything is read from files the kernel offers, and of GPUs from their driver (`edgeseg.bench.gpus`). No tool is
started and nothing is changed. What cannot be read is None.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg._optional import package_version
from edgeseg.bench.gpus import Gpu, GpuState, cuda_version, describe_gpus, gpu_states
from edgeseg.postprocess import warm_up
from edgeseg.runtimes.tensorrt.packages import TRT_PACKAGES

__all__ = ["DeviceState", "Machine", "describe_machine", "device_state"]

_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Machine:
    """The machine and the software below edgeseg.

    Attributes:
        system: ``Linux``, ``Darwin`` or ``Windows``.
        os: Distribution and version in words.
        kernel: Kernel release.
        architecture: ``x86_64``, ``aarch64``, ...
        cpu: Processor model in words.
        physical_cores: Cores without counting hardware threads twice.
        logical_cores: Hardware threads of the machine.
        usable_cores: Hardware threads this process may run on (its affinity).
        cpu_quota: Processors the container may use, None where it is not limited.
        memory_mib: Main memory.
        governor: Frequency governor of the first core.
        cpu_mhz_max: Highest clock the governor may set.
        clocks_locked: Whether the lowest and highest allowed clock are equal (as jetson_clocks sets them), of every
            core and of every GPU that tells.
        container: Kind of container, as far as one shows itself.
        board: Model by device tree (Jetson, Raspberry Pi).
        power_mode: Jetson's nvpmodel mode.
        gpus: Models of the NVIDIA GPUs.
        gpu_driver: Version of the NVIDIA driver.
        cuda: Newest CUDA version that the driver serves.
        tensorrt: Version of TensorRT's Python package.
        gpu_details: The GPUs with their clocks and power limits, as far as something here tells.
        python: Version of Python.
        numpy: Version of numpy.
        postprocess: What runs the postprocessing: ``compiled`` or ``numpy``; None in files of before, which have numba.
        opencv: Version of OpenCV.
        opencv_threads: Threads OpenCV uses.
    """

    system: str
    os: str
    kernel: str
    architecture: str
    cpu: str
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: int | None
    cpu_quota: float | None
    memory_mib: int | None
    governor: str | None
    cpu_mhz_max: float | None
    clocks_locked: bool | None
    container: str | None
    board: str | None
    power_mode: str | None
    gpus: tuple[str, ...]
    gpu_driver: str | None
    python: str
    numpy: str
    opencv: str
    opencv_threads: int
    postprocess: str | None = None
    cuda: str | None = None
    tensorrt: str | None = None
    gpu_details: tuple[Gpu, ...] = ()

    #: What makes two machines two: figures measured where one of these differs must not be compared.
    IDENTITY = ("system", "architecture", "board", "cpu", "logical_cores", "usable_cores", "cpu_quota", "gpus")
    #: What may explain a difference on one machine.
    CONDITIONS = (
        "os",
        "kernel",
        "governor",
        "cpu_mhz_max",
        "clocks_locked",
        "power_mode",
        "container",
        "gpu_driver",
        "cuda",
        "tensorrt",
        "gpu_details",
        "python",
        "numpy",
        "postprocess",
        "opencv",
        "opencv_threads",
    )

    def differences(self, other: Machine, names: tuple[str, ...] = IDENTITY) -> tuple[str, ...]:
        """Describe every named field that differs, as in ``"cpu is A, then B"``."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return tuple(f"{name} is {_word(a)}, then {_word(b)}" for name, a, b in pairs if a != b)

    def line(self) -> str:
        """Describe the machine in one line for people."""
        cores = f"{self.usable_cores or '?'} of {self.logical_cores or '?'} hardware threads"
        memory = f"{self.memory_mib / 1024:.1f} GiB" if self.memory_mib else None
        gpus = map(str, self.gpu_details) if self.gpu_details else self.gpus
        parts = [self.board, self.cpu, cores, memory, *gpus, self.power_mode]
        clocks = "clocks locked" if self.clocks_locked else self.governor and f"governor {self.governor}"
        parts += [clocks, self.container and f"in {self.container}", f"{self.os}, kernel {self.kernel}"]
        return ", ".join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """Read what `to_json` gave; unknown keys are ignored.

        Raises:
            KeyError: A field is missing that every version wrote.
        """
        values = {
            f.name: data.get(f.name, f.default) if f.default is not MISSING else data[f.name] for f in fields(cls)
        }
        details = tuple(Gpu.from_json(gpu) if isinstance(gpu, Mapping) else gpu for gpu in values["gpu_details"])
        return cls(**{**values, "gpus": tuple(str(gpu) for gpu in values["gpus"]), "gpu_details": details})


@dataclass(frozen=True)
class DeviceState:
    """The load, clock and temperature, which change while one measures.

    Attributes:
        load_average: Runnable processes on average over the last minute.
        cpu_mhz: Mean clock of the cores now.
        temperature_c: Hottest thermal zone, degrees Celsius.
        gpus: Clock, heat and power of each GPU.
    """

    load_average: float | None = None
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    gpus: tuple[GpuState, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeviceState:
        """Read what `to_json` gave; unknown keys are ignored."""
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "gpus": tuple(GpuState(**gpu) for gpu in data.get("gpus", ()))})


def describe_machine(root: Path = Path("/")) -> Machine:
    """Describe this machine.

    Args:
        root: Where ``proc``, ``sys`` and ``etc`` lie; another folder than ``/`` is for tests, without drivers.

    Example:
        >>> describe_machine().opencv == cv2.__version__
        True
    """
    here = root == Path("/")
    details = describe_gpus(root, drivers=here)
    lowest, highest = _clocks(root, "scaling_min_freq"), _clocks(root, "scaling_max_freq")
    return Machine(
        system=platform.system(),
        os=_os_name(root),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=_cpu_model(root),
        physical_cores=_physical_cores(root),
        logical_cores=os.cpu_count(),
        usable_cores=_usable_cores(),
        cpu_quota=_cpu_quota(root),
        memory_mib=_memory_mib(root),
        governor=_read(root / _CPU / "cpu0/cpufreq/scaling_governor"),
        cpu_mhz_max=max(highest) if highest else None,
        clocks_locked=_locked(lowest, highest, details),
        container=_container(root),
        board=_read(root / "proc/device-tree/model"),
        power_mode=_power_mode(root),
        gpus=_gpus(root) or tuple(gpu.name for gpu in details),
        gpu_driver=_gpu_driver(root),
        python=platform.python_version(),
        numpy=np.__version__,
        postprocess=warm_up(),
        opencv=cv2.__version__,
        opencv_threads=cv2.getNumThreads(),
        cuda=cuda_version() if here else None,
        tensorrt=package_version(*TRT_PACKAGES) or None,
        gpu_details=details,
    )


def device_state(root: Path = Path("/")) -> DeviceState:
    """Read load, clock and temperature now."""
    clocks = _clocks(root, "scaling_cur_freq") or _proc_clocks(root)
    zones = [_number(path) for path in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))]
    heats = [zone / 1000.0 for zone in zones if zone is not None and zone > 0]
    try:
        load: float | None = round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        load = None
    mean, hottest = sum(clocks) / len(clocks) if clocks else None, max(heats) if heats else None
    return DeviceState(load, mean, hottest, gpu_states(root, drivers=root == Path("/")))


def _locked(lowest: list[float], highest: list[float], gpus: tuple[Gpu, ...]) -> bool | None:
    told = [gpu.clocks_locked for gpu in gpus if gpu.clocks_locked is not None]
    if lowest and highest:
        told.append(lowest == highest)
    return all(told) if told else None


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.replace("\0", "").strip() or None


def _number(path: Path) -> float | None:
    try:
        return float(_read(path) or "")
    except ValueError:
        return None


def _found(pattern: str, text: str | None) -> str | None:
    match = re.search(pattern, text or "", re.MULTILINE)
    return match.group(1).strip() if match else None


def _os_name(root: Path) -> str:
    name = _found(r'^PRETTY_NAME="?([^"\n]+)"?', _read(root / "etc/os-release"))
    return name or f"{platform.system()} {platform.version()}"


def _cpu_model(root: Path) -> str:
    info = _read(root / "proc/cpuinfo")
    named = _found(r"^model name\s*:\s*(.+)$", info) or _found(r"^Hardware\s*:\s*(.+)$", info)
    part = _found(r"^CPU part\s*:\s*(.+)$", info)  # ARM kernels name the design by number only
    maker = _found(r"^CPU implementer\s*:\s*(.+)$", info)
    return named or (f"ARM implementer {maker} part {part}" if part else platform.processor() or "unknown")


def _physical_cores(root: Path) -> int | None:
    topologies = (root / _CPU).glob("cpu[0-9]*/topology")
    pairs = {(_read(t / "physical_package_id"), _read(t / "core_id")) for t in topologies}
    known = {pair for pair in pairs if pair[1] is not None}
    return len(known) or None


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpu_quota(root: Path) -> float | None:
    words = (_read(root / "sys/fs/cgroup/cpu.max") or "max").split()
    if len(words) == 2 and words[0].isdigit():
        return round(int(words[0]) / int(words[1]), 2)
    quota = _number(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period = _number(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return round(quota / period, 2) if quota and period and quota > 0 else None


def _memory_mib(root: Path) -> int | None:
    kib = _found(r"^MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"))
    if kib:
        return int(kib) // 1024
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total) >> 20


def _clocks(root: Path, name: str) -> list[float]:
    numbers = [_number(path) for path in sorted((root / _CPU).glob(f"cpu[0-9]*/cpufreq/{name}"))]
    return [khz / 1000.0 for khz in numbers if khz is not None]


def _proc_clocks(root: Path) -> list[float]:
    return [float(x) for x in re.findall(r"^cpu MHz\s*:\s*([\d.]+)$", _read(root / "proc/cpuinfo") or "", re.MULTILINE)]


def _container(root: Path) -> str | None:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = _read(root / "proc/1/cgroup") or ""
    return next((word for word in ("kubepods", "docker", "lxc", "containerd") if word in groups), None)


def _power_mode(root: Path) -> str | None:
    number = _found(r"pmode:0*(\d+)", _read(root / "var/lib/nvpmodel/status"))
    if number is None:
        return None
    name = _found(rf"<\s*POWER_MODEL ID={number}\s+NAME=(\S+)\s*>", _read(root / "etc/nvpmodel.conf"))
    return f"nvpmodel {number}" + (f" ({name})" if name else "")


def _gpus(root: Path) -> tuple[str, ...]:
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    models = (_found(r"^Model:\s*(.+)$", _read(file)) for file in files)
    return tuple(model for model in models if model)


def _gpu_driver(root: Path) -> str | None:
    line = _read(root / "proc/driver/nvidia/version")
    return _found(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", line)
