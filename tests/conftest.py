"""Fixtures shared by the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real checkpoints and pictures; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"real checkpoints and pictures are not beside the checkout ({SHARED.name}/)")
    return SHARED


@pytest.fixture(scope="session")
def real_weights(shared: Path) -> Path:
    """Published checkpoints."""
    folder = shared / "real" / "weights"
    if not folder.is_dir():
        pytest.skip("no published checkpoints beside the checkout")
    return folder
