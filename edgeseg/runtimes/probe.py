"""What this machine can run, for ``edgeseg doctor``: looks at packages, GPUs and devices, and changes nothing.

Nothing here raises for a thing that is missing; what is missing is the answer. Heavy packages (torch) are not imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg._optional import is_installed, package_version, require
from edgeseg._quiet import telemetry
from edgeseg.bench.machine import describe_machine
from edgeseg.errors import EdgesegError, TargetUnavailableError
from edgeseg.runtimes.tensorrt import cuda
from edgeseg.targets import TARGETS, registered_targets

__all__ = ["MachineInfo", "TargetProbe", "probe_machine", "probe_targets"]

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

_L4T_TO_JETPACK = {"35": "5", "36": "6", "38": "7"}


@dataclass(frozen=True)
class TargetProbe:
    """Whether a target can be used here.

    Attributes:
        target: Canonical target name.
        usable: Whether `open_session` has what it needs.
        engine: Engine and version, empty where it is not installed.
        devices: Providers or devices it could run on.
        reason: Why it is not usable, in a sentence; empty where it is.
        advice: What to do about it; empty where there is nothing to do.
    """

    target: str
    usable: bool
    engine: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    advice: str = ""


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
        postprocess=_postprocess(machine.numba),
        gpus=gpus,
        cuda=driver,
        jetpack=_jetpack(root),
        board=machine.board or "",
        telemetry=", ".join(map(str, telemetry())),
    )


def _postprocess(numba: str | None) -> str:
    return f"numba {numba}" if numba else "numpy; pip install 'edgeseg[numba]' makes it two to four times as fast"


def probe_targets() -> list[TargetProbe]:
    """Look at every target, edgeseg's own and those registered through entry points."""
    probes: dict[str, Callable[[], TargetProbe]] = {
        "ort": _probe_ort,
        "openvino": _probe_openvino,
        "trt": _probe_trt,
        "trt-rtx": _probe_rtx,
        "torch": _probe_torch,
    }
    found = [_guarded(name, probes[name]) for name in TARGETS]
    others = sorted(registered_targets() - set(TARGETS))
    return found + [TargetProbe(name, True, engine="registered by another package") for name in others]


def _guarded(target: str, probe: Callable[[], TargetProbe]) -> TargetProbe:
    try:
        return probe()
    except EdgesegError as error:
        return _from_error(target, error)
    except Exception as error:  # an engine that breaks while it is looked at is an answer too
        return TargetProbe(target, False, reason=f"looking at it failed: {type(error).__name__}: {error}")


def _from_error(target: str, error: EdgesegError, engine: str = "") -> TargetProbe:
    """Our errors read ``what is wrong; what to do``."""
    reason, _, advice = str(error).partition("; ")
    return TargetProbe(target, False, engine=engine, reason=reason, advice=advice)


def _probe_ort() -> TargetProbe:
    ort = require("onnxruntime", extra="", why="the ort target")
    providers = tuple(str(p) for p in ort.get_available_providers() if p != "AzureExecutionProvider")
    advice = ""
    if len(_distributions("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")) > 1:
        advice = "several onnxruntime packages are installed and overwrite one another; keep one of them"
    return TargetProbe("ort", True, f"onnxruntime {ort.__version__}", providers, advice=advice)


def _distributions(*names: str) -> tuple[str, ...]:
    return tuple(name for name in names if package_version(name))


def _probe_openvino() -> TargetProbe:
    from edgeseg.runtimes.openvino.session import shared_core

    ov = require("openvino", extra="openvino", why="the openvino target")
    devices = tuple(str(device) for device in shared_core().available_devices)
    version = str(ov.__version__).partition("-")[0]
    if not devices:
        return TargetProbe("openvino", False, f"openvino {version}", reason="OpenVINO finds no device on this machine")
    return TargetProbe("openvino", True, f"openvino {version}", devices)


def _probe_trt() -> TargetProbe:
    from edgeseg.runtimes.tensorrt.trt import ADVICE

    version = package_version("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
    if not version or not is_installed("tensorrt"):  # without it, or where the version is known by the module only
        version = str(require("tensorrt", extra="tensorrt", why="the trt target", advice=ADVICE).__version__)
    return _with_gpu("trt", f"tensorrt {version}")


def _probe_rtx() -> TargetProbe:
    version = package_version("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx")
    if not version:
        from edgeseg.runtimes.tensorrt.rtx import rtx_module

        version = str(rtx_module().__version__)
    return _with_gpu("trt-rtx", f"tensorrt-rtx {version}")


def _with_gpu(target: str, engine: str) -> TargetProbe:
    """A target whose package is there and that needs a GPU besides."""
    try:
        gpus = cuda.list_gpus()
    except TargetUnavailableError as error:
        return _from_error(target, error, engine)
    if not gpus:
        return TargetProbe(target, False, engine, reason="the NVIDIA driver finds no GPU")
    return TargetProbe(target, True, engine, tuple(map(str, gpus)))


def _probe_torch() -> TargetProbe:
    if not is_installed("torch"):
        return TargetProbe(
            "torch",
            False,
            reason="the torch target needs the package torch, which is not installed",
            advice="it is only needed to export and to compare; install it with: pip install 'edgeseg[export]'",
        )
    return TargetProbe("torch", True, f"torch {package_version('torch')}".strip(), ("cpu",))


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
