"""What doctor says of PyTorch, without importing it."""

from __future__ import annotations

import sys

import pytest

from edgeseg.runtimes.torch.engine import TORCH


def test_it_is_the_reference_and_never_lowered() -> None:
    assert TORCH.lowers_to == ()
    assert not TORCH.needs_gpu


def test_what_is_missing_is_for_export_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = TORCH.look()
    assert (found.usable, found.engine) == (False, "")
    assert "only needed to export and to compare" in found.advice
