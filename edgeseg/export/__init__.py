"""From a PyTorch module to a bundle that proves itself. Needs ``pip install 'edgeseg[export]'``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.errors import UsageError
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule, Size

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.export.pipeline import ExportReport
    from edgeseg.models import ModelSpec

__all__ = ["export_model"]


def export_model(
    network: str | nn.Module,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    spec: ModelSpec | None = None,
    size: Size | None = None,
    targets: Sequence[str] = ("ort",),
    out: str | Path = ".",
    name: str | None = None,
    batch: int = 1,
    dynamic: bool = False,
    label_size: Size | None = None,
    output: str = "logits",
    fuse: bool = True,
    input: InputSpec | None = None,
    resize: ResizeRule | None = None,
    postprocess: PostprocessSpec | None = None,
    labels: str | None = None,
    adjust: Callable[[ModelSpec], ModelSpec] | None = None,
    parity_images: Sequence[str | Path] = (),
    sample: str | Path | None = None,
    min_agreement: float | None = None,
    max_logit_error: float | None = None,
    precision: str = "fp32",
    calib: str | Path | None = None,
    calib_labels: str | Path | None = None,
    calib_ignore: int | None = None,
    calib_positive_label: int | None = None,
    max_miou_drop: float | None = None,
    force: bool = False,
    rewrites: bool = True,
    skip_passes: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export a network to a bundle ``OUT/NAME.edgeseg``, verified against fp32 PyTorch on every target.

    Args:
        network: Registry name, ``package.module:factory``, or any module that takes normalised images (N, 3, H, W) and
            returns logits (N, classes, h, w).
        weights: Published or own checkpoint; without it the weights are random (registered networks) or as they stand.
        num_classes: Output channels of a registered network; without it, what the checkpoint holds.
        spec: All conventions at once; `input`, `resize`, `postprocess`, `labels` change single ones.
        size: Height x width of the graph's input; None is the published size.
        targets: Target names or aliases.
        out: Folder the bundle is written into.
        name: Of the bundle; None is the network's.
        batch: Fixed batch of the graph.
        dynamic: Leave height and width of the graph free.
        label_size: Height x width of the labels a graph ends in; None is `size`.
        output: ``labels`` also writes graphs from uint8 picture to labels alone (``labels/`` in the bundle), for
            programs without edgeseg's Predictor.
        fuse: Fold BN and branches on the module first.
        input: Channel order, mean, std, scale.
        resize: How a picture becomes network input.
        postprocess: align_corners of the trailing resize; threshold of a single logit.
        labels: Label set name.
        adjust: Called with the conventions found; what it returns is used. For changing parts of one.
        parity_images: Pictures to verify on besides the sample and two synthetic ones.
        sample: Picture stored as the self test.
        min_agreement: Smallest share of labels equal to fp32 PyTorch's, 0..1; None is 0.999 for fp32 and fp16, 0.99
            for bf16 and 0.98 for int8 (of held-out calibration pictures; not asked for where `max_miou_drop` is).
        max_logit_error: Largest logit difference relative to the logits' range; None is the network's own tolerance.
        precision: ``fp32``; ``fp16`` and ``int8`` in the graph; ``bf16`` for OpenVINO on an fp32 graph.
        calib: Folder of calibration pictures, needed for int8; every fourth is held out to score by.
        calib_labels: Folder of label maps ``STEM.png`` for them; mIoU is then measured too.
        calib_ignore: Label value of void in the label maps.
        calib_positive_label: Label value that means class 1, for masks of 0 and 255.
        max_miou_drop: Largest loss of mIoU against fp32, 0..1; operators stay float until it holds.
        force: Write a low precision though it is below its budget or slower than fp32.
        rewrites: Rewrite the graph where the same numbers cost less, exactly in real arithmetic; each rewrite is
            checked and undone where it does not hold.
        skip_passes: Names of passes to leave out (`edgeseg.export.passes.registry.pass_names`).
        progress: Called with a few words before each step.

    Returns:
        What was made and proved.

    Raises:
        EdgesegError: See `edgeseg.errors`; nothing is left behind.
    """
    from edgeseg._optional import require

    for package in ("torch", "onnx", "onnxsim", "onnxscript"):
        require(package, extra="export", why="export")
    from edgeseg.export.config import ExportConfig, asked_targets, canonical_targets
    from edgeseg.export.pipeline import run_export
    from edgeseg.export.precision import PrecisionConfig
    from edgeseg.models.source import resolve_network

    lowered = PrecisionConfig(
        precision=precision,
        calib=None if calib is None else Path(calib),
        calib_labels=None if calib_labels is None else Path(calib_labels),
        calib_ignore=calib_ignore,
        calib_positive_label=calib_positive_label,
        max_miou_drop=max_miou_drop,
        min_agreement=min_agreement,
        force=force,
        aims=asked_targets(targets),
    )
    config = ExportConfig(
        targets=canonical_targets(targets),
        size=size,
        batch=batch,
        dynamic=dynamic,
        label_size=label_size,
        output=output,
        fuse=fuse,
        min_agreement=0.999 if min_agreement is None or lowered.lowers else min_agreement,
        max_logit_error=max_logit_error,
        parity_images=tuple(Path(path) for path in parity_images),
        sample=None if sample is None else Path(sample),
        labels=labels,
        precision=lowered,
        rewrites=rewrites,
        skip_passes=tuple(skip_passes),
    )
    _refuse_what_own_networks_lack(network, config.targets, num_classes)
    source = resolve_network(network, weights=weights, num_classes=num_classes, spec=spec)
    changes = {"input": input, "resize": resize, "postprocess": postprocess, "labels": labels}
    chosen = source.spec.but(**{key: value for key, value in changes.items() if value is not None})
    source = replace(source, spec=adjust(chosen) if adjust else chosen)
    return run_export(source, config, out=Path(out), name=_checked_name(name, source.spec), progress=progress)


def _refuse_what_own_networks_lack(network: str | nn.Module, targets: Sequence[str], num_classes: int | None) -> None:
    if "torch" in targets and not isinstance(network, str):
        raise UsageError(
            "the torch target builds the network again by name, and a module handed in has none; export a registered "
            "network or package.module:factory for it, or leave torch out"
        )
    if num_classes is not None and (not isinstance(network, str) or ":" in network):
        raise UsageError("num_classes (--classes) is for registered networks; a network of your own decides it itself")


def _checked_name(name: str | None, spec: ModelSpec) -> str:
    """The bundle's name: a plain file name."""
    chosen = spec.name or "network" if name is None else name
    if not chosen.strip() or chosen.startswith(".") or any(mark in chosen for mark in "/\\\0"):
        raise UsageError(f"'{chosen}' cannot name a bundle; give a plain name, and the folder as --out")
    return chosen
