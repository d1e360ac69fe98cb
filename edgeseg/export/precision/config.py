"""What precision an export is asked for, on which pictures it is calibrated, and what it must hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import UnknownNameError, UsageError

__all__ = ["PRECISIONS", "PrecisionConfig"]

#: Precision -> smallest share of labels that must equal fp32 PyTorch's on held-out pictures, where nothing is said.
PRECISIONS: dict[str, float] = {"fp32": 0.999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98}


@dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Options of the precision of one export.

    Attributes:
        precision: ``fp32``; ``fp16``: casts in the graph; ``int8``: symmetric Q/DQ in the graph; ``bf16``: an fp32
            graph that OpenVINO runs in bf16 arithmetic.
        calib: Folder of calibration pictures; needed for int8.
        calib_labels: Folder of label maps with the pictures' stems; with it mIoU is measured.
        calib_ignore: Label value of void in them.
        calib_positive_label: Label value that means class 1, for masks of 0 and 255.
        max_miou_drop: Largest loss of mIoU against fp32 on held-out labelled pictures, 0..1 (0.005 is half a point).
        min_agreement: Smallest share of labels equal to fp32 PyTorch's on held-out pictures, 0..1; None is the
            precision's own (`PRECISIONS`), or none where `max_miou_drop` is the budget.
        force: Write the bundle though a budget is missed or a target is slower; the report says so.
        aims: Targets the precision is for; empty is what the export was asked for.
    """

    precision: str = "fp32"
    calib: Path | None = None
    calib_labels: Path | None = None
    calib_ignore: int | None = None
    calib_positive_label: int | None = None
    max_miou_drop: float | None = None
    min_agreement: float | None = None
    force: bool = False
    aims: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if self.precision == "int8" and self.calib is None:
            raise UsageError(
                "int8 needs calibration pictures, since ranges of random numbers would be those of no real picture; "
                "give a folder of pictures like those the device will see (--calib FOLDER)"
            )
        if self.calib is not None and not self.lowers:
            raise UsageError("calibration pictures (--calib) are for --precision int8, fp16 or bf16; got fp32")
        if self.calib_labels is not None and self.calib is None:
            raise UsageError("label maps (--calib-labels) belong to calibration pictures; give --calib FOLDER too")
        self._check_budgets()

    def _check_budgets(self) -> None:
        drop, share = self.max_miou_drop, self.min_agreement
        if drop is not None and not 0.0 <= drop <= 1.0:
            raise UsageError(f"max_miou_drop is {drop}; it is a share between 0 and 1 (0.005 is half a point)")
        if drop is not None and self.calib_labels is None:
            raise UsageError("max_miou_drop needs label maps to measure mIoU on; give --calib-labels FOLDER")
        if share is not None and not 0.0 <= share <= 1.0:
            raise UsageError(f"min_agreement is {share}; it is a share between 0 and 1")

    @property
    def lowers(self) -> bool:
        """Whether anything but fp32 is wanted."""
        return self.precision != "fp32"

    @property
    def agreement_budget(self) -> float:
        """Smallest share of equal labels that is accepted."""
        if self.min_agreement is not None:
            return self.min_agreement
        return 0.0 if self.max_miou_drop is not None else PRECISIONS[self.precision]
