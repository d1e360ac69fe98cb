"""What an export is asked to do, as one frozen value checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import UsageError
from edgeseg.export.passes.registry import default_passes
from edgeseg.export.precision import PrecisionConfig
from edgeseg.specs import Size
from edgeseg.targets import GRAPH_LABEL_TARGETS, resolve_target

__all__ = ["ExportConfig"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of one export.

    Attributes:
        targets: Canonical target names; ``ort`` is always among them, since every bundle holds ``model.onnx``.
        size: Height x width of the graph's input; None is the network's published size.
        batch: Fixed batch of the graph.
        dynamic: Leave height and width free. Refused for the TensorRT targets, whose graph ends in labels of one size.
        label_size: Height x width of the labels a graph ends in; None is `size`.
        output: ``labels`` also writes graphs that end in labels alone, for programs without edgeseg's Predictor.
        fuse: Fold BN and branches on the module before export.
        min_agreement: Smallest share of pixels, 0..1, whose label must equal fp32 PyTorch's on every verified target.
        max_logit_error: Largest difference of a logit from fp32 PyTorch's, relative to the range of the logits;
            None is the network's own tolerance (`ModelSpec.logit_tolerance`).
        parity_images: Pictures to verify on besides the sample and two synthetic edge cases.
        labels: Label set that was asked for, which must fit the network's classes; None takes the network's own where
            it fits, else generic names.
        sample: Picture stored as the self test; None is the picture that ships with edgeseg.
        precision: Of the numbers in the graph, and what it must hold.
        rewrites: Let the passes change what the graph computes, exactly in real arithmetic (`edgeseg.export.passes`).
        skip_passes: Names of passes left out.
    """

    targets: tuple[str, ...] = ("ort",)
    size: Size | None = None
    batch: int = 1
    dynamic: bool = False
    label_size: Size | None = None
    output: str = "logits"
    fuse: bool = True
    min_agreement: float = 0.999
    max_logit_error: float | None = None
    parity_images: tuple[Path, ...] = ()
    sample: Path | None = None
    labels: str | None = None
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    rewrites: bool = True
    skip_passes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch is {self.batch}; it must be at least 1")
        if not 0.0 <= self.min_agreement <= 1.0:
            raise UsageError(f"min_agreement is {self.min_agreement}; it is a share between 0 and 1")
        if self.max_logit_error is not None and not self.max_logit_error >= 0.0:
            raise UsageError(f"max_logit_error is {self.max_logit_error}; it is a share of the range, 0 or more")
        for name, size in (("size", self.size), ("label_size", self.label_size)):
            if size is not None and min(size) < 1:
                raise UsageError(f"{name} {size[0]}x{size[1]} is not positive; give HEIGHTxWIDTH in pixels")
        if self.precision.precision == "bf16" and "openvino" not in self.targets:
            raise UsageError("bf16 is arithmetic of OpenVINO on CPUs that have it; add the target openvino")
        default_passes(skip=self.skip_passes)  # an unknown name is told before the work
        gpu = [target for target in self.targets if target in GRAPH_LABEL_TARGETS]
        if self.dynamic and gpu:
            raise UsageError(
                f"--dynamic was asked for with {', '.join(gpu)}, whose graph ends in labels of one size; "
                "export a fixed --size for them, or leave them out"
            )
        if self.output not in ("logits", "labels"):
            raise UsageError(f"output '{self.output}' is neither logits nor labels")
        if self.output == "labels" and self.dynamic:
            raise UsageError("--output labels ends the graph in labels of one size; leave out --dynamic")
        if self.label_size is not None and not gpu and self.output != "labels":
            raise UsageError(
                "--label-size concerns graphs that end in labels; add --output labels, or the target trt or trt-rtx"
            )

    @property
    def graph_postprocess(self) -> bool:
        """Whether a graph that ends in labels is wanted."""
        return any(target in GRAPH_LABEL_TARGETS for target in self.targets)


def canonical_targets(words: Sequence[str]) -> tuple[str, ...]:
    """Canonical, distinct target names, ``ort`` first.

    Raises:
        UnknownNameError: A word that names no target.
    """
    return tuple(dict.fromkeys(("ort", *asked_targets(words))))


def asked_targets(words: Sequence[str]) -> tuple[str, ...]:
    """Canonical, distinct names of the targets that were asked for.

    Raises:
        UnknownNameError: A word that names no target.
    """
    names = [resolve_target(part) for word in words for part in word.split(",") if part.strip()]
    return tuple(dict.fromkeys(names))
