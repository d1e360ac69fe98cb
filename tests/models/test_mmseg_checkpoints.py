"""Checkpoint files as mmsegmentation writes them, with the keys of its state dicts as the golden records tell them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgeseg.errors import CheckpointError
from edgeseg.models import create_model
from edgeseg.models.checkpoints import load_state, read_checkpoint
from edgeseg.models.registry import build_on_meta
from tests.goldens.runner import FOLDER, golden, load_record

NETWORKS = ("mmseg_segformer_b0", "mmseg_deeplabv3plus_r18_d8", "mmseg_pspnet_r18_d8")


def _published(name: str) -> dict[str, Tensor]:
    """Every key of the published state dict, counters too, and an auxiliary head where the network trains with one."""
    record: dict[str, Any] = load_record(FOLDER / f"{name}.json")
    state = {key: torch.from_numpy(value).float() for key, value in golden.published_state(record).items()}
    state |= {key: torch.tensor(80_000) for key, _, how in record["state"] if how == "keep"}
    assert state.keys() == {key for key, _, _ in record["state"]}
    if name != "mmseg_segformer_b0":
        full = build_on_meta(name, aux=True).state_dict()
        aux = {key: torch.ones(x.shape, dtype=x.dtype) for key, x in full.items() if key.startswith("auxiliary_head.")}
        assert aux
        state |= aux
    return state


def _save(path: Path, state: dict[str, Tensor]) -> Path:
    meta = {
        "mmseg_version": "0.5.0+b57fb2b", "config": "norm_cfg = dict(type='SyncBN')\n", "iter": 80_000, "epoch": 215,
        "CLASSES": ("road", "sidewalk"), "PALETTE": [[128, 64, 128], [244, 35, 232]],
    }  # fmt: skip
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_every_published_key_is_read_and_none_is_missing(tmp_path: Path, name: str) -> None:
    published = _published(name)
    file = _save(tmp_path / f"{name}.pth", published)
    assert read_checkpoint(file).keys() == published.keys()
    loaded = create_model(name, weights=file).state_dict()
    assert loaded.keys() == {key for key in published if not key.startswith("auxiliary_head.")}
    assert all(torch.equal(loaded[key], published[key]) for key in loaded)


@pytest.mark.parametrize("name", NETWORKS[1:])
def test_auxiliary_head_is_read_where_it_is_asked_for(tmp_path: Path, name: str) -> None:
    published = _published(name)
    loaded = create_model(name, weights=_save(tmp_path / "w.pth", published), aux=True).state_dict()
    assert loaded.keys() == published.keys()
    assert all(torch.equal(loaded[key], published[key]) for key in loaded)


def test_a_missing_key_is_told() -> None:
    name = "mmseg_segformer_b0"
    state = _published(name)
    lost = "backbone.layers.0.1.0.attn.attn.in_proj_bias"
    del state[lost]
    with pytest.raises(CheckpointError, match=f"1 missing \\({lost}\\)"):
        load_state(create_model(name), state, what=name)
