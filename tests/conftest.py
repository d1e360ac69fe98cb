"""Fixtures shared by the whole suite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.runtimes import Engine, engine
from edgeseg.runtimes.registry import forget_engines
from tests.packages import TOY_ENGINE, install_project

U8 = NDArray[np.uint8]

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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path that `tests.packages.install` installs into; engines are looked for there anew."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    forget_engines()
    yield folder
    forget_engines()
    for name in set(sys.modules) - before:  # the next test installs a package of that name again, elsewhere
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def toy_engine(site: Path) -> Engine:
    """The engine of ``tests/toy_engine``, a package of its own, installed."""
    install_project(site, TOY_ENGINE)
    return engine("Toy")


@pytest.fixture
def picture() -> U8:
    return np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.fixture
def smooth() -> U8:
    """A picture that JPEG and resizing barely change; red falls from left to right, green from the top down."""
    y, x = np.mgrid[0:24, 0:40]
    return np.stack((250 - 6 * x, 250 - 10 * y, np.full_like(x, 60)), axis=2).astype(np.uint8)
