"""What an export may be asked for, and what is refused with the way out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from edgeseg.cli.app import app
from edgeseg.errors import UnknownNameError, UsageError
from edgeseg.export.config import ExportConfig, config_of, option_help
from edgeseg.labelled import LabelledPictures

CALIB = Path("frames")
LABELLED = LabelledPictures(CALIB, "labels", ignore=255)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "int8"}, "int8 needs calibration pictures"),
        ({"calib": CALIB}, "are for --precision int8, fp16 or bf16"),
        ({"precision": "fp16", "calib_recursive": True}, "for a folder of calibration pictures"),
        ({"precision": "int8", "calib": LABELLED, "calib_recursive": True}, "for a folder of calibration pictures"),
        ({"precision": "int8", "calib": CALIB, "max_miou_drop": 0.01}, "give --calib-labels FOLDER"),
        ({"precision": "int8", "calib": LABELLED, "max_miou_drop": 5.0}, "max_miou_drop is 5.0"),
        ({"precision": "int8", "calib": CALIB, "min_agreement": 98.0}, "min_agreement is 98.0"),
        ({"targets": []}, "no target is given"),
        ({"targets": [" ", ","]}, "no target is given"),
    ],
)
def test_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ExportConfig(**options)


def test_unknown_precision() -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'int4'"):
        ExportConfig(precision="int4")


def test_an_option_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown export option 'sise': did you mean 'size'"):
        config_of(None, {"sise": (64, 128)})
    with pytest.raises(UnknownNameError, match="unknown export option 'calibration'"):
        ExportConfig().but(calibration=CALIB)


def test_budget_is_the_precisions_own_unless_miou_is_the_budget() -> None:
    int8 = ExportConfig(precision="int8", calib=CALIB)
    assert (int8.budget("int8"), int8.budget("bf16"), int8.fp32_budget) == (0.98, 0.99, 0.999)
    half = int8.but(min_agreement=0.5)
    assert (half.budget("int8"), half.budget("bf16"), half.fp32_budget) == (0.5, 0.5, 0.999)
    assert ExportConfig(min_agreement=0.5).fp32_budget == 0.5
    labelled = int8.but(calib=LABELLED, max_miou_drop=0.005)
    assert labelled.budget("int8") == 0.0


def test_bf16_needs_openvino() -> None:
    with pytest.raises(UsageError, match="add the target openvino"):
        ExportConfig(targets=("ort",), precision="bf16")


def test_targets_are_canonical_and_onnx_runtime_is_always_there() -> None:
    config = config_of(None, {"targets": ["OV,tensorrt", "openvino"]})
    assert (config.targets, config.all_targets) == (("openvino", "trt"), ("ort", "openvino", "trt"))


def test_paths_may_be_text() -> None:
    config = config_of(None, {"sample": "a.png", "parity_images": "b.png", "skip_passes": "FlushTiny"})
    assert (config.sample, config.parity_images, config.skip_passes) == (
        Path("a.png"),
        (Path("b.png"),),
        ("FlushTiny",),
    )


def test_options_by_name_go_before_those_of_a_config() -> None:
    config = config_of(ExportConfig(batch=2, dynamic=True), {"batch": 3})
    assert (config.batch, config.dynamic) == (3, True)


@pytest.mark.parametrize("name", [entry.name for entry in fields(ExportConfig)])
def test_every_option_is_documented_in_sentences(name: str) -> None:
    assert option_help(name).endswith(".")


def test_the_command_line_has_every_option_with_that_text() -> None:
    export: Any = typer.main.get_command(app)
    texts = [str(getattr(option, "help", "")) for option in export.commands["export"].params]
    negated = {"fuse", "rewrites"}  # --no-fuse and --no-rewrites say what leaving them out does
    for entry in fields(ExportConfig):
        assert entry.name in negated or any(text.startswith(option_help(entry.name)) for text in texts), entry.name


def test_a_target_that_keeps_fp32_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fp16 was asked for with ncnn alone, .*ncnn's tools for int8 .*add another"):
        ExportConfig(targets=("ncnn",), precision="fp16", calib=tmp_path)
    both = ExportConfig(targets=("ort", "ncnn"), precision="fp16", calib=tmp_path)
    assert [note.partition(":")[0] for note in both.kept_fp32] == ["ncnn has fp32 in this bundle"]
    assert not ExportConfig(targets=("ort", "ncnn")).kept_fp32
    assert not ExportConfig(targets=("ort", "torch"), precision="fp16", calib=tmp_path).kept_fp32
