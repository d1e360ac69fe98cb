"""What an export made and proved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.bundle import Bundle, Parity, open_bundle
from edgeseg.export.fusion import FusionReport
from edgeseg.export.precision.report import PrecisionReport
from edgeseg.graph.passes import PassReport

__all__ = ["ExportReport"]


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export made and proved.

    Attributes:
        path: Of the bundle.
        parity: One entry per target.
        fusion: What was folded on the module; None with ``fuse=False``.
        passes: One report per pass on the ONNX graph.
        seconds: Time per step.
        nodes: Operators in ``model.onnx``.
        macs: Multiply-accumulates for one image, 0 where they could not be counted.
        parameters: Of the module.
        precision: What a low precision costs and gains; None for fp32.
        notes: Sentences the user must see.
    """

    path: Path
    parity: tuple[Parity, ...] = ()
    fusion: FusionReport | None = None
    passes: tuple[PassReport, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    nodes: int = 0
    macs: int = 0
    parameters: int = 0
    precision: PrecisionReport | None = None
    notes: tuple[str, ...] = ()

    @property
    def bundle(self) -> Bundle:
        """The bundle, opened."""
        return open_bundle(self.path, check=False)
