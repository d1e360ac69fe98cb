"""Bundles of real checkpoints, exported once per run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edgeseg

Export = Callable[..., Path]


@pytest.fixture(scope="session")
def export_real(tmp_path_factory: pytest.TempPathFactory, real_weights: Path) -> Export:
    """Export a network with a real checkpoint for ONNX Runtime and OpenVINO; repeated calls share the bundle."""
    folder = tmp_path_factory.mktemp("real")
    made: dict[tuple[str, str], Path] = {}

    def export(network: str, checkpoint: str, size: tuple[int, int]) -> Path:
        key = (network, checkpoint)
        if key not in made:
            targets = ["ort", "openvino"]
            report = edgeseg.export_model(
                network, weights=real_weights / checkpoint, size=size, targets=targets, out=folder
            )
            made[key] = report.path
        return made[key]

    return export
