"""What this machine can run, for ``edgeseg doctor``: looks at packages, GPUs and devices, and changes nothing.

Nothing here raises for a thing that is missing; what is missing is the answer. Heavy packages (torch) are not imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg._quiet import telemetry
from edgeseg.bench.machine import describe_machine
from edgeseg.errors import EdgesegError
from edgeseg.postprocess.compiled import why_not
from edgeseg.runtimes.engine import Probe
from edgeseg.runtimes.registry import engines, refused_engines
from edgeseg.runtimes.tensorrt import cuda

__all__ = ["MachineInfo", "probe_machine", "probe_targets"]

#: Processor flags that decide how fast (or whether) int8 and fp16 arithmetic runs.
CPU_FLAGS = (
    "sse4_2",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "avx512_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)

_L4T_TO_JETPACK = {"34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}


@dataclass(frozen=True)
class MachineInfo:
    """The machine as far as it matters for inference.

    Attributes:
        os: Distribution and version in words.
        kernel: Kernel release.
        architecture: ``x86_64``, ``aarch64``, ...
        cpu: Processor model.
        cores: Hardware threads this process may use.
        cpu_flags: Those of `CPU_FLAGS` the processor has.
        memory_total: Bytes of main memory (or what the container may use, if less); None where it is not told.
        memory_available: Bytes that could be allocated now; None where it is not told.
        python: Version.
        postprocess: What makes labels of logits on the host.
        gpus: NVIDIA GPUs the driver shows.
        cuda: Newest CUDA version the driver serves; empty without a driver.
        jetpack: Such as ``"JetPack 6 (L4T 36.4.3)"``; empty elsewhere.
        board: Model by device tree; empty elsewhere.
        telemetry: Whether the packages below edgeseg may send usage data from here, and who decided.
    """

    os: str
    kernel: str
    architecture: str
    cpu: str
    cores: int | None
    cpu_flags: tuple[str, ...]
    memory_total: int | None
    memory_available: int | None
    python: str
    postprocess: str
    gpus: tuple[cuda.GpuInfo, ...]
    cuda: str
    jetpack: str
    board: str
    telemetry: str


def probe_machine(root: Path = Path("/")) -> MachineInfo:
    """Describe this machine.

    Args:
        root: Where ``proc``, ``sys`` and ``etc`` lie; another folder than ``/`` is for tests.
    """
    machine = describe_machine(root)
    total, available = _memory(root)
    gpus, driver = _gpus()
    return MachineInfo(
        os=machine.os,
        kernel=machine.kernel,
        architecture=machine.architecture,
        cpu=machine.cpu,
        cores=machine.usable_cores,
        cpu_flags=_cpu_flags(root),
        memory_total=total,
        memory_available=available,
        python=machine.python,
        postprocess=_postprocess(),
        gpus=gpus,
        cuda=driver,
        jetpack=_jetpack(root),
        board=machine.board or "",
        telemetry=", ".join(map(str, telemetry())),
    )


def _postprocess() -> str:
    reason = why_not()
    return f"numpy, at a half to a quarter of the speed: {reason}" if reason else "compiled"


def probe_targets() -> dict[str, Probe]:
    """Look at every target, edgeseg's own and those of other packages.

    Returns:
        Target -> what is here of it. A registered one that cannot be used is among them, with the sentence why.
    """
    found = {record.name: record.look() for record in engines()}
    for name, sentence in refused_engines().items():
        reason, _, advice = sentence.partition("; ")
        found[name] = Probe(False, reason=reason, advice=advice)
    return found


def _gpus() -> tuple[tuple[cuda.GpuInfo, ...], str]:
    try:
        return cuda.list_gpus(), cuda.driver_version()
    except EdgesegError:
        return (), ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "").strip()
    except OSError:
        return ""


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Total and available bytes, no more than the container's limit."""
    info = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE))
    total, available = (int(info[key]) * 1024 if key in info else None for key in ("MemTotal", "MemAvailable"))
    limits = list(_container_limits(root))
    for limit, used in limits:
        total = limit if total is None else min(total, limit)
        available = None if available is None else max(0, min(available, limit - used))
    return total, available


def _container_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes, where a control group sets one (version 2, then 1)."""
    groups = root / "sys/fs/cgroup"
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for limit_file, used_file in pairs:
        limit, used = _text(groups / limit_file), _text(groups / used_file)
        if limit.isdigit() and int(limit) < 1 << 60:
            yield int(limit), int(used) if used.isdigit() else 0


def _cpu_flags(root: Path) -> tuple[str, ...]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    held = set(match.group(1).split()) if match else set()
    return tuple(flag for flag in CPU_FLAGS if flag in held)


def _jetpack(root: Path) -> str:
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    if match is None:
        return ""
    major, minor = match.groups()
    jetpack = _L4T_TO_JETPACK.get(major)
    return f"JetPack {jetpack} (L4T {major}.{minor})" if jetpack else f"L4T {major}.{minor}"
