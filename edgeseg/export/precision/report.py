"""What a low precision costs and gains, side by side: agreement, mIoU, latency and size, per target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["KeptFloat", "Latency", "PrecisionReport", "TargetFigures"]


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of the engine, fp32 and low precision alternating in blocks.

    Attributes:
        fp32: Median over all runs.
        low: Median over all runs.
        slower_blocks: Blocks in which the low precision's median was the larger.
        blocks: Blocks measured.
    """

    fp32: float
    low: float
    slower_blocks: int
    blocks: int

    @property
    def speedup(self) -> float:
        """How many times as fast as fp32."""
        return self.fp32 / self.low if self.low else 0.0


@dataclass(frozen=True)
class TargetFigures:
    """One target's figures.

    Attributes:
        target: Canonical name.
        precision: That the target has in the bundle.
        engine: Engine and version.
        arithmetic: What the engine says it computes in.
        agreement: Share of labels equal to fp32 PyTorch's on the held-out pictures, 0..1.
        agreement_95: Ends of its 95 % interval, from resampling the pictures; None for a single picture, and where
            the target does not run on this machine.
        miou: On the held-out labelled pictures, 0..1; None without labels.
        latency: None where the target does not run on this machine.
        size: Bytes of the target's files.
        size_fp32: The same of an fp32 export; None where it was not made.
        ran: False where the engine was built but not run.
    """

    target: str
    precision: str
    engine: str
    arithmetic: str
    agreement: float
    agreement_95: tuple[float, float] | None = None
    miou: float | None = None
    latency: Latency | None = None
    size: int = 0
    size_fp32: int | None = None
    ran: bool = True


@dataclass(frozen=True)
class KeptFloat:
    """An operator left in fp32, and why.

    Attributes:
        node: Its name.
        op: Its operator.
        why: In a few words.
    """

    node: str
    op: str
    why: str


@dataclass(frozen=True, kw_only=True)
class PrecisionReport:
    """What was made of a precision.

    Attributes:
        precision: ``fp16``, ``bf16`` or ``int8``.
        recipe: How it was made, in words.
        calibration: Pictures calibrated on.
        held_out: Pictures measured on; none of them was calibrated on unless `notes` says so.
        lowered: Operators in low precision.
        kept: Operators that stayed in fp32 though they could have been lowered.
        miou_fp32: Of fp32 PyTorch on the held-out labelled pictures.
        self_test: Agreement the sample picture must have on a device.
        targets: Figures per target.
        notes: Sentences the user must see.
    """

    precision: str
    recipe: str = ""
    calibration: int = 0
    held_out: int = 0
    lowered: int = 0
    kept: tuple[KeptFloat, ...] = ()
    miou_fp32: float | None = None
    self_test: float = 0.0
    targets: tuple[TargetFigures, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def rows(self) -> Sequence[dict[str, str]]:
        """The table for people: one row of cells per target."""
        return [self._row(entry) for entry in self.targets]

    def _row(self, entry: TargetFigures) -> dict[str, str]:
        latency, size = entry.latency, f"{entry.size / 1e6:.2f} MB"
        return {
            "target": entry.target,
            "precision": entry.precision,
            "computes in": entry.arithmetic,
            "labels equal to fp32": _share(entry) if entry.ran else "engine not run",
            "mIoU (fp32)": "-" if entry.miou is None else f"{entry.miou:.2%} ({self.miou_fp32 or 0.0:.2%})",
            "ms (fp32)": "-" if latency is None else f"{latency.low:.1f} ({latency.fp32:.1f})",
            "size (fp32)": size if entry.size_fp32 is None else f"{size} ({entry.size_fp32 / 1e6:.2f} MB)",
        }


def _share(entry: TargetFigures) -> str:
    """The agreement, with its interval where there is one."""
    if entry.agreement_95 is None:
        return f"{entry.agreement:.3%}"
    low, high = entry.agreement_95
    return f"{entry.agreement:.3%} ({low:.2%} to {high:.2%})"
