"""Predictors on a `FakeSession`, and a tiny bundle for a real engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeseg.bundle import Bundle
from edgeseg.predictor import Predictor
from edgeseg.predictor import predictor as predictor_module
from tests.predictor.fakes import Fake, FakeSession, manifest
from tests.runtimes.bundles import make_tiny_bundle


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Make a Predictor on a `FakeSession`; returns both."""

    def make(
        *, labels: bool = False, of: Mapping[str, Any] | None = None, **options: object
    ) -> tuple[Predictor, FakeSession]:
        data = manifest(of or {})
        session = FakeSession(data, labels=labels)
        monkeypatch.setattr(predictor_module, "open_session", lambda *_: session)
        return Predictor(Bundle(Path("fake.edgeseg"), data), **options), session  # type: ignore[arg-type]

    return make


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path)
