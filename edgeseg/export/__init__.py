"""From a PyTorch module to a bundle that proves itself. Needs ``pip install 'edgeseg[export]'``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from edgeseg.export.config import ExportConfig
    from edgeseg.export.report import ExportReport
    from edgeseg.models import ModelSpec
    from edgeseg.models.source import NetworkSource

__all__ = ["export_model"]


def export_model(
    network: str | nn.Module | ExportedProgram | NetworkSource,
    config: ExportConfig | None = None,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    spec: ModelSpec | None = None,
    out: str | Path = ".",
    name: str | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> ExportReport:
    """Export a network to a bundle ``OUT/NAME.edgeseg``, verified against fp32 PyTorch on every target.

    Args:
        network: Registry name, ``package.module:factory``, the file of a TorchScript archive or exported program, or
            any module or exported program that takes normalised images (N, C, H, W) and returns logits (N, classes, h,
            w); or what `edgeseg.models.source.resolve_network`, or for a config of mmsegmentation
            `edgeseg.models.configs.source.resolve_config`, gave, its conventions changed with ``.but(...)``.
        config: The options (`edgeseg.export.config.ExportConfig`).
        weights: Published or own checkpoint; without it the weights are random (registered networks) or as they stand.
        num_classes: Output channels of a registered network; without it, what the checkpoint holds.
        spec: Conventions of the network, where they are not the registry's or the module's own: ``model_spec(NAME)``
            or ``custom_spec(NAME)`` of `edgeseg.models`, changed with ``.but(input=..., resize=..., labels=...)``.
        out: Folder the bundle is written into.
        name: Of the bundle; the network's where none is given.
        progress: Called with a few words before each step.
        options: Fields of `ExportConfig` by name, which go before those of `config`; and ``weights_key``, the set of
            weights to take where the checkpoint holds several.

    Returns:
        What was made and proved.

    Raises:
        EdgesegError: See `edgeseg.errors`; nothing is left behind.

    >>> from torch import nn
    >>> report = export_model(nn.Conv2d(3, 4, kernel_size=1), size=(16, 32), name="pixels")
    >>> report.path.name, report.parity[0].target, report.parity[0].differing
    ('pixels.edgeseg', 'ort', 0)
    """
    from edgeseg._optional import require
    from edgeseg.export.config import config_of

    for package in ("torch", "onnx", "onnxsim", "onnxscript"):
        require(package, extra="export", why="export")
    weights_key = options.pop("weights_key", None)
    chosen = config_of(config, options)
    from edgeseg.export.job import prepare_job
    from edgeseg.export.pipeline import run_export
    from edgeseg.models.source import NetworkSource, resolve_network
    from edgeseg.runtimes import engine

    if not isinstance(network, NetworkSource):
        network = resolve_network(network, weights=weights, weights_key=weights_key, num_classes=num_classes, spec=spec)
    elif any(given is not None for given in (weights, weights_key, num_classes, spec)):
        raise UsageError("a resolved network has its weights, classes and conventions; change them there")
    if any("network" in engine(target).options for target in chosen.targets) and not network.by_name:
        raise UsageError(
            "the torch target builds the network again by name, and a module handed in has none; export a registered "
            "network or package.module:factory for it, or leave torch out"
        )
    return run_export(prepare_job(network, chosen, name), out=Path(out), progress=progress)
