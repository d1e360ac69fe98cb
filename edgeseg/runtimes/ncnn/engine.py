"""The ``ncnn`` target: ncnn, for Arm boards and phones, and for x86 where convolutions of 3x3 take the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg._optional import require
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.engine import BuildRequest, Engine, Probe

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.runtimes.ncnn.session import NcnnSession

__all__ = ["NCNN"]


def _open(bundle: Bundle, options: RuntimeOptions) -> NcnnSession:
    from edgeseg.runtimes.ncnn.session import open_session

    return open_session(bundle, options)


def _probe() -> Probe:
    ncnn = require("ncnn", extra="ncnn", why="the ncnn target")
    return Probe(True, f"ncnn {ncnn.__version__}", ("CPU",))


def _requires() -> None:
    require("ncnn", extra="ncnn-export", why="the ncnn target")
    require("pnnx", extra="ncnn-export", why="exporting for the ncnn target")


def _build(request: BuildRequest) -> None:
    from edgeseg.runtimes.ncnn.build import build

    build(request)


NCNN = Engine(
    name="ncnn",
    description="ncnn (CPU: Arm and x86)",
    needs="`edgeseg[ncnn]`; `edgeseg[ncnn-export]` to export",
    extra="ncnn",
    options={
        "threads": "threads of the engine; by default one per physical core",
        "precision": "f32 (default, exact); on Arm also f16-storage, or f16 for the arithmetic too",
    },
    files=("ncnn/",),
    packages=("ncnn", "pnnx"),
    lowers_to=(),
    one_size="pnnx computes sizes into its graph",
    fp32_reason="ncnn's tools for int8 are in none of its packages, and its half precision is chosen on the device "
    "(precision f16-storage or f16, on Arm)",
    open=_open,
    probe=_probe,
    requires=_requires,
    build=_build,
)
