"""Tensors in what a network returns, and the logits at a path."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from edgeseg.errors import ExportError
from edgeseg.models.outputs import logits_at, tensors_in

LOGITS, AUX = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)


class _Pair(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


@dataclass
class _Result:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    loss: float | None = None


@pytest.mark.parametrize(
    ("output", "paths"),
    [
        (LOGITS, [""]),
        ([LOGITS, None, AUX], ["0", "2"]),
        ((LOGITS,), ["0"]),
        (OrderedDict(aux=AUX, out=LOGITS), ["aux", "out"]),
        (_Pair(LOGITS, AUX), ["logits", "aux_logits"]),
        (_Result(LOGITS, (AUX, AUX)), ["logits", "hidden.0", "hidden.1"]),
        (SimpleNamespace(pred=LOGITS, _cache=AUX), ["pred"]),
        ({"heads": [{"seg": LOGITS}, {"depth": AUX}]}, ["heads.0.seg", "heads.1.depth"]),
        (None, []),
        ("text", []),
    ],
)
def test_every_tensor_has_a_path(output: object, paths: list[str]) -> None:
    assert list(tensors_in(output)) == paths


def test_an_object_that_holds_itself_ends() -> None:
    knot = SimpleNamespace(out=LOGITS)
    knot.again = knot
    assert tensors_in(knot)["out"] is LOGITS


@pytest.mark.parametrize(
    ("output", "take"),
    [
        (LOGITS, ""),
        ([LOGITS], ""),
        ({"out": LOGITS}, ""),
        ([AUX, LOGITS], "1"),
        ({"aux": [AUX, LOGITS]}, "aux.1"),
        (_Pair(LOGITS, AUX), "logits"),
    ],
)
def test_logits_at_a_path(output: object, take: str) -> None:
    assert logits_at(output, take) is LOGITS


def test_a_classifier_has_one_label_for_the_picture() -> None:
    assert logits_at(torch.zeros(2, 7)).shape == (2, 7, 1, 1)


@pytest.mark.parametrize(
    ("output", "take", "told"),
    [
        (torch.zeros(1, 3, 4), "", r"returned \(1, 3, 4\); expected logits .* squeeze"),
        ([], "", "returned list without a tensor"),
        ({}, "", "returned dict without a tensor"),
        (None, "", "returned NoneType without a tensor"),
        (LOGITS.long(), "", r"returned torch\.int64; .* before any argmax"),
        (LOGITS.bool(), "", r"returned torch\.bool; .* before any argmax"),
        ([LOGITS, AUX], "", r"returned 2 tensors \(0, 1\); expected logits"),
        ({"out": LOGITS}, "aux", "no tensor 'aux'; it returned out"),
        (LOGITS, "out", "no tensor 'out'; it returned a tensor alone"),
    ],
)
def test_what_is_no_logits(output: object, take: str, told: str) -> None:
    with pytest.raises(ExportError, match=told):
        logits_at(output, take)
