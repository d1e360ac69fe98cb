"""The manifest's round trip, and every way a bundle can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import SCHEMA_VERSION, Manifest, Parity, open_bundle, write_manifest
from edgeseg.errors import BundleError
from edgeseg.files import sha256_of
from edgeseg.specs import InputSpec, ResizeRule, TailSpec

sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096))
words = st.text(max_size=12)


def _manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "n",
        "network": "net",
        "num_classes": 2,
        "labels": ("a", "b"),
        "palette": ((0, 0, 0), (255, 255, 255)),
        "input_size": (32, 64),
        "logit_size": (4, 8),
        "divisor": 8,
        "input": InputSpec.imagenet(),
        "resize": ResizeRule(),
        "tail": TailSpec(True),
        "targets": ("ort",),
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with one file."""
    made = tmp_path / "n.edgeseg"
    made.mkdir()
    (made / "model.onnx").write_bytes(b"graph")
    write_manifest(made, _manifest(files={"model.onnx": sha256_of(made / "model.onnx")}))
    return made


@given(
    name=words,
    labels=st.lists(words, min_size=1, max_size=4),
    size=sizes,
    label_size=st.none() | sizes,
    batch=st.integers(1, 8),
    dynamic=st.booleans(),
    differing=st.integers(0, 100),
)
def test_manifest_survives_json(
    name: str,
    labels: list[str],
    size: tuple[int, int],
    label_size: tuple[int, int] | None,
    batch: int,
    dynamic: bool,
    differing: int,
) -> None:
    manifest = _manifest(
        name=name,
        labels=tuple(labels),
        palette=tuple((i, 0, 0) for i in range(len(labels))),
        input_size=size,
        label_size=label_size,
        batch=batch,
        dynamic=dynamic,
        parity=(Parity("ort", 100, differing, 1e-6, 2.0, 3, "engine 1"),),
        facts={"paper": name, "macs": 3},
    )
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_agreement_is_a_share_of_pixels() -> None:
    assert Parity("ort", pixels=200, differing=1).agreement == pytest.approx(0.995)
    assert Parity("trt", ran=False).agreement == 0.0


def test_open_checks_every_byte(folder: Path) -> None:
    assert open_bundle(folder).file("model.onnx") == folder / "model.onnx"
    (folder / "model.onnx").write_bytes(b"grapi")
    with pytest.raises(BundleError, match=r"model\.onnx .* SHA-256 differs"):
        open_bundle(folder)
    assert open_bundle(folder, check=False).manifest.name == "n"
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match="has lost"):
        open_bundle(folder)


def test_a_file_the_bundle_never_held_is_told_from_the_targets(folder: Path) -> None:
    with pytest.raises(BundleError, match="exported for ort; export it again"):
        open_bundle(folder).file("openvino/model.xml")


def test_a_newer_schema_is_refused(folder: Path) -> None:
    data = _manifest().to_json() | {"schema_version": SCHEMA_VERSION + 1}
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=f"schema version {SCHEMA_VERSION + 1}.*update edgeseg"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{}", "no schema_version"),
        ('{"schema_version": 1}', "lacks or garbles"),
        ('{"schema_version": "1"}', "no schema_version"),
    ],
)
def test_a_garbled_manifest_is_one_sentence(folder: Path, text: str, told: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=told):
        open_bundle(folder)


def test_missing_folder_or_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        open_bundle(tmp_path)
