"""The record of the ``Toy`` target. It imports nothing heavy: its functions do, when they are called."""

from __future__ import annotations

import shutil
from importlib import metadata, util
from typing import TYPE_CHECKING

from edgeseg.errors import TargetUnavailableError
from edgeseg.runtimes import BuildRequest, Engine, Probe, RuntimeOptions, Session

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle

__all__ = ["ENGINE", "GRAPH"]

GRAPH = "toy/graph.onnx"
"""File of a bundle that this engine opens."""


def open_session(bundle: Bundle, options: RuntimeOptions) -> Session:
    """Open ``toy/graph.onnx`` of a bundle."""
    require_onnx()
    from edgeseg_toy_engine.session import ToySession

    return ToySession(bundle.file(GRAPH), verbose=options.hint == "verbose")


def build(request: BuildRequest) -> None:
    """Write ``toy/graph.onnx``: the graph, metadata and all."""
    file = request.folder / GRAPH
    file.parent.mkdir(exist_ok=True)
    shutil.copyfile(request.graph, file)


def probe() -> Probe:
    """Say whether onnx is here."""
    require_onnx()
    return Probe(True, f"toy on onnx {metadata.version('onnx')}", ("CPU",))


def require_onnx() -> None:
    """Refuse a machine without onnx."""
    if util.find_spec("onnx") is None:
        raise TargetUnavailableError("the Toy target needs the package onnx, which is not installed; install it")


ENGINE = Engine(
    name="Toy",
    aliases=("reference",),
    description="onnx's reference evaluator",
    needs="`edgeseg-toy-engine`",
    options={"hint": "quiet (default) or verbose"},
    files=(GRAPH,),
    packages=("edgeseg-toy-engine",),
    open=open_session,
    probe=probe,
    requires=require_onnx,
    build=build,
)
