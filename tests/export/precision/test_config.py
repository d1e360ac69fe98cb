"""What a precision may be asked for, and what is refused with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.export.config import ExportConfig
from edgeseg.export.precision import PrecisionConfig

CALIB = Path("frames")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "int8"}, "int8 needs calibration pictures"),
        ({"calib": CALIB}, "are for --precision int8, fp16 or bf16"),
        ({"precision": "fp16", "calib_labels": CALIB}, "give --calib FOLDER too"),
        ({"precision": "int8", "calib": CALIB, "max_miou_drop": 0.01}, "give --calib-labels FOLDER"),
        ({"precision": "int8", "calib": CALIB, "calib_labels": CALIB, "max_miou_drop": 5.0}, "max_miou_drop is 5.0"),
        ({"precision": "int8", "calib": CALIB, "min_agreement": 98.0}, "min_agreement is 98.0"),
    ],
)
def test_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        PrecisionConfig(**options)


def test_unknown_precision() -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'int4'"):
        PrecisionConfig(precision="int4")


def test_budget_is_the_precisions_own_unless_miou_is_the_budget() -> None:
    int8 = PrecisionConfig(precision="int8", calib=CALIB)
    assert int8.agreement_budget == 0.98
    assert PrecisionConfig(precision="int8", calib=CALIB, min_agreement=0.5).agreement_budget == 0.5
    labelled = PrecisionConfig(precision="int8", calib=CALIB, calib_labels=CALIB, max_miou_drop=0.005)
    assert labelled.agreement_budget == 0.0


def test_bf16_needs_openvino() -> None:
    with pytest.raises(UsageError, match="add the target openvino"):
        ExportConfig(targets=("ort",), precision=PrecisionConfig(precision="bf16"))
