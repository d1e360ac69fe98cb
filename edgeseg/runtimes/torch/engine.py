"""The ``torch`` target: plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg._optional import is_installed, package_version, require
from edgeseg.runtimes._base import RuntimeOptions
from edgeseg.runtimes.engine import BuildRequest, Engine, Probe
from edgeseg.runtimes.torch import TORCH_WEIGHTS

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.runtimes.torch.session import TorchSession

__all__ = ["TORCH"]


def _open(bundle: Bundle, options: RuntimeOptions) -> TorchSession:
    from edgeseg.runtimes.torch.session import open_session

    return open_session(bundle, options)


def _probe() -> Probe:
    if not is_installed("torch"):
        return Probe(
            False,
            reason="the torch target needs the package torch, which is not installed",
            advice="it is only needed to export and to compare; install it with: pip install 'edgeseg[export]'",
        )
    return Probe(True, f"torch {package_version('torch')}".strip(), ("cpu",))


def _requires() -> None:
    require("safetensors", extra="export", why="the torch target")


def _build(request: BuildRequest) -> None:
    from edgeseg.runtimes.torch.build import build

    build(request)


TORCH = Engine(
    name="torch",
    aliases=("pytorch",),
    description="plain PyTorch, the reference the others are compared with",
    needs="`edgeseg[export]`",
    extra="export",
    options={
        "device": "cpu (default), cuda or cuda:1",
        "threads": "threads of PyTorch in the whole process",
        "weights": "checkpoint to use before the bundle's own weights",
        "network": "package.module:factory (or registry name) to build; a bundle's word is not run",
    },
    files=(TORCH_WEIGHTS,),
    lowers_to=(),
    open=_open,
    probe=_probe,
    requires=_requires,
    build=_build,
)
