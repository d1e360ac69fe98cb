"""``edgeseg gpu-check``: is this GPU right, and how fast is it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli._shared import console
from edgeseg.cli.options import Device

if TYPE_CHECKING:
    from edgeseg.bench.gpu import Finding

__all__ = ["gpu_check"]


def gpu_check(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="NAME.edgeseg folders exported for the target.", show_default=False)
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help="trt or trt-rtx.")] = "trt",
    device: Device = None,
    driver_only: Annotated[
        bool, typer.Option("--driver-only", help="The driver and the label kernel alone: needs no TensorRT.")
    ] = False,
    budget: Annotated[
        float, typer.Option(min=1.0, help="Seconds it may take; what was left out is said, and did not pass.")
    ] = 1500.0,
    repeat: Annotated[int, typer.Option(min=1, help="Runs timed.")] = 100,
    min_agreement: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of labels; by default by the bundle's precision.")
    ] = None,
    max_logit_error: Annotated[
        float | None, typer.Option(min=0.0, help="Share of the logits' range; by default by the bundle's precision.")
    ] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder of the plans; by default one that is removed after it.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="JSON file, written after each check.")] = None,
) -> None:
    """Check driver, label kernel and engines on this machine's NVIDIA GPU; code 4: failed, 9: not all was run."""
    from edgeseg.bench.gpu import GpuCheckSettings, check_gpu
    from edgeseg.bench.gpu.engine import Budget
    from edgeseg.errors import UsageError
    from edgeseg.runtimes import resolve_target
    from edgeseg.runtimes.tensorrt.packages import TARGETS

    folders = bundles or []
    if driver_only == bool(folders):
        raise UsageError("name the bundles to check, or --driver-only without any; see edgeseg gpu-check --help")
    if resolve_target(target) not in TARGETS:
        raise UsageError(f"target '{target}' runs on no NVIDIA GPU through TensorRT; use trt or trt-rtx")
    if (min_agreement is None) != (max_logit_error is None):
        raise UsageError("give --min-agreement and --max-logit-error together, or neither")
    limits = None if min_agreement is None or max_logit_error is None else Budget(min_agreement, max_logit_error)
    settings = GpuCheckSettings(
        target=resolve_target(target), device=device, budget=budget, limits=limits, repeat=repeat, cache_dir=cache_dir
    )
    found = check_gpu(folders, settings, save=save, told=_tell)
    found.check()
    console().print(found.line(), soft_wrap=True)


def _tell(name: str, finding: Finding) -> None:
    console().print(f"{name or 'driver'}: {finding}", soft_wrap=True)
    console().file.flush()
