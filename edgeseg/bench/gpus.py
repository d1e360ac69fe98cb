"""The NVIDIA GPUs of a machine, and the clocks, power and heat that decide what is measured on them.

Three sources, each of which may be missing: the CUDA driver (multiprocessors), NVML where ``nvidia-ml-py`` is installed
(clocks and power of a desktop's or server's GPU), and the kernel's files on a Jetson. What cannot be read is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from edgeseg.errors import EdgesegError

__all__ = ["Gpu", "GpuState", "cuda_version", "describe_gpus", "gpu_states"]

_T = TypeVar("_T")
_DEVFREQ = re.compile(r"^[0-9a-f]+\.(gpu|gv11b|ga10b|gb10b)$|^gpu-gpc-\d+$")
_EMC = "sys/kernel/debug/bpmp/debug/clk/emc"
_MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One GPU. Clocks are MHz, power is watts.

    Attributes:
        name: Model.
        compute_capability: Such as ``"8.7"``.
        multiprocessors: Streaming multiprocessors in use; a Jetson's power mode may switch some off.
        memory_mib: Memory; a Jetson's is the machine's own.
        mhz_min: Lowest clock that is allowed (Jetson).
        mhz_max: Highest clock that is allowed (Jetson), or that the GPU has.
        memory_mhz_max: Highest clock of its memory; a Jetson tells root only.
        power_limit: Most that it may draw.
        power_limit_default: Most that it may draw as shipped.
        persistent: Whether the driver stays loaded between programs.
    """

    name: str
    compute_capability: str | None = None
    multiprocessors: int | None = None
    memory_mib: int | None = None
    mhz_min: float | None = None
    mhz_max: float | None = None
    memory_mhz_max: float | None = None
    power_limit: float | None = None
    power_limit_default: float | None = None
    persistent: bool | None = None

    @property
    def clocks_locked(self) -> bool | None:
        """Whether its lowest and highest allowed clock are equal (as jetson_clocks sets them); None if unknown."""
        if self.mhz_min is None or self.mhz_max is None:
            return None
        return self.mhz_min == self.mhz_max

    def __str__(self) -> str:
        low = f"{self.mhz_min:g} to " if self.mhz_min is not None and not self.clocks_locked else ""
        parts = [
            self.name,
            self.compute_capability and f"sm_{self.compute_capability.replace('.', '')}",
            self.multiprocessors and f"{self.multiprocessors} multiprocessors",
            self.memory_mib and f"{self.memory_mib} MiB",
            self.mhz_max and f"{low}{self.mhz_max:g} MHz",
            self.memory_mhz_max and f"memory {self.memory_mhz_max:g} MHz",
            self.power_limit and f"{self.power_limit:g} W",
            self.persistent is not None and f"persistence {'on' if self.persistent else 'off'}",
        ]
        return ", ".join(part for part in parts if part)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gpu:
        """Read what `dataclasses.asdict` gave; unknown keys are ignored.

        Raises:
            TypeError: No name.
        """
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})


@dataclass(frozen=True)
class GpuState:
    """What changes while one measures: MHz, degrees Celsius, watts."""

    mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return asdict(self)


def describe_gpus(root: Path = Path("/"), *, drivers: bool = True) -> tuple[Gpu, ...]:
    """Describe the GPUs of this machine.

    Args:
        root: Where ``sys`` lies.
        drivers: Ask the CUDA driver and NVML too, which know nothing of another root.

    Example:
        >>> describe_gpus(Path("/nonexistent"), drivers=False)
        ()
    """
    found = list(_managed()) if drivers else []
    for gpu in _seen_by_cuda() if drivers else ():
        twin = next((i for i, g in enumerate(found) if g.name == gpu.name and g.multiprocessors is None), None)
        if twin is None:
            found.append(gpu)
        else:
            found[twin] = replace(found[twin], multiprocessors=gpu.multiprocessors)
    folder = _devfreq(root)
    if folder is None:
        return tuple(found)
    low, high, memory = _mhz(folder / "min_freq"), _mhz(folder / "max_freq"), _mhz(root / _EMC / "max_rate")
    gpus = found or [Gpu("Jetson GPU")]
    return tuple(replace(gpu, mhz_min=low, mhz_max=high, memory_mhz_max=memory) for gpu in gpus)


def gpu_states(root: Path = Path("/"), *, drivers: bool = True) -> tuple[GpuState, ...]:
    """Clock, heat and power of each GPU now; arguments are those of `describe_gpus`."""
    folder = _devfreq(root)
    if folder is not None:
        return (GpuState(_mhz(folder / "cur_freq"), _mhz(root / _EMC / "rate"), _gpu_heat(root)),)
    return tuple(_managed_states()) if drivers else ()


def cuda_version() -> str | None:
    """Newest CUDA version that the driver serves; None without one."""
    from edgeseg.runtimes.tensorrt import cuda

    try:
        return cuda.driver_version()
    except EdgesegError:
        return None


def _seen_by_cuda() -> tuple[Gpu, ...]:
    from edgeseg.runtimes.tensorrt import cuda

    try:
        gpus = cuda.list_gpus()
    except EdgesegError:
        return ()
    return tuple(Gpu(g.name, g.compute_capability, g.multiprocessors, g.memory // _MIB) for g in gpus)


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, started for the block; None where the package or the library is missing, or it does not start."""
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _handles(nvml: Any) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Each GPU, and how it is asked: what it does not tell is None."""

    def asked(call: Callable[..., _T], *arguments: Any) -> _T | None:
        with suppress(nvml.NVMLError):
            return call(*arguments)
        return None

    for index in range(asked(nvml.nvmlDeviceGetCount) or 0):
        handle = asked(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is not None:
            yield handle, asked


def _managed() -> Iterator[Gpu]:
    """The GPUs that NVML manages."""
    with _nvml() as nvml:
        for gpu, ask in _handles(nvml) if nvml else ():
            capability, memory = (
                ask(nvml.nvmlDeviceGetCudaComputeCapability, gpu),
                ask(nvml.nvmlDeviceGetMemoryInfo, gpu),
            )
            persistent = ask(nvml.nvmlDeviceGetPersistenceMode, gpu)
            yield Gpu(
                name=_text(ask(nvml.nvmlDeviceGetName, gpu)),
                compute_capability=".".join(map(str, capability)) if capability else None,
                memory_mib=memory.total // _MIB if memory else None,
                mhz_max=ask(nvml.nvmlDeviceGetMaxClockInfo, gpu, nvml.NVML_CLOCK_SM),
                memory_mhz_max=ask(nvml.nvmlDeviceGetMaxClockInfo, gpu, nvml.NVML_CLOCK_MEM),
                power_limit=_watts(ask(nvml.nvmlDeviceGetEnforcedPowerLimit, gpu)),
                power_limit_default=_watts(ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit, gpu)),
                persistent=None if persistent is None else persistent == nvml.NVML_FEATURE_ENABLED,
            )


def _managed_states() -> Iterator[GpuState]:
    with _nvml() as nvml:
        for gpu, ask in _handles(nvml) if nvml else ():
            yield GpuState(
                mhz=ask(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_SM),
                memory_mhz=ask(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_MEM),
                temperature_c=ask(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
                power_w=_watts(ask(nvml.nvmlDeviceGetPowerUsage, gpu)),
            )


def _text(value: str | bytes | None) -> str:
    if value is None:
        return "unknown"
    return value.decode(errors="replace") if isinstance(value, bytes) else value  # bytes until nvidia-ml-py 11.5


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000.0


def _devfreq(root: Path) -> Path | None:
    """The folder of a Jetson's GPU in ``/sys/class/devfreq``."""
    folders = sorted(root.glob("sys/class/devfreq/*"))
    return next((folder for folder in folders if _DEVFREQ.match(folder.name)), None)


def _mhz(file: Path) -> float | None:
    """A clock that the kernel tells in Hz."""
    try:
        return round(int(file.read_text(encoding="ascii")) / 1e6, 3)
    except (OSError, ValueError):
        return None


def _gpu_heat(root: Path) -> float | None:
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        with suppress(OSError, ValueError):
            if "gpu" in (zone / "type").read_text(encoding="ascii").lower():
                return int((zone / "temp").read_text(encoding="ascii")) / 1000.0
    return None
