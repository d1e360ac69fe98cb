"""The manifest's round trip, and every way a bundle can be wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import SCHEMA_VERSION, Bundle, Manifest, Parity, open_bundle, write_manifest
from edgeseg.errors import BundleError, ParityError
from edgeseg.files import sha256_of
from edgeseg.predictor import Predictor
from edgeseg.specs import InputSpec, PostprocessSpec, ResizeRule
from tests.runtimes.bundles import SAMPLE_SIZE, changed, make_tiny_bundle

sizes = st.tuples(st.integers(1, 512), st.integers(1, 512)).map(lambda pair: (8 * pair[0], 8 * pair[1]))
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
        "postprocess": PostprocessSpec(True),
        "targets": ("ort",),
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with one file."""
    made = tmp_path / "n.edgeseg"
    made.mkdir()
    (made / "weights.bin").write_bytes(b"graph")
    write_manifest(made, _manifest(files={"weights.bin": sha256_of(made / "weights.bin")}))
    return made


@given(
    name=words,
    labels=st.lists(words, min_size=2, max_size=4),
    size=sizes,
    batch=st.integers(1, 8),
    dynamic=st.booleans(),
    differing=st.integers(0, 100),
)
def test_manifest_survives_json(
    name: str,
    labels: list[str],
    size: tuple[int, int],
    batch: int,
    dynamic: bool,
    differing: int,
) -> None:
    manifest = _manifest(
        name=name,
        num_classes=len(labels),
        labels=tuple(labels),
        palette=tuple((i, 0, 0) for i in range(len(labels))),
        input_size=size,
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
    assert open_bundle(folder).file("weights.bin") == folder / "weights.bin"
    assert open_bundle(folder).read("weights.bin") == b"graph"
    (folder / "weights.bin").write_bytes(b"grapi")
    with pytest.raises(BundleError, match=r"weights\.bin .* SHA-256 differs"):
        open_bundle(folder)
    unchecked = open_bundle(folder, check=False)
    assert unchecked.manifest.name == "n"
    with pytest.raises(BundleError, match=r"weights\.bin .* SHA-256 differs"):
        unchecked.read("weights.bin")
    (folder / "weights.bin").unlink()
    with pytest.raises(BundleError, match="has lost"):
        open_bundle(folder)


def test_a_missing_file_of_a_bundle_names_its_targets(folder: Path) -> None:
    with pytest.raises(BundleError, match="exported for ort; export it again"):
        open_bundle(folder).file("openvino/model.xml")


def test_a_newer_schema_is_refused(folder: Path) -> None:
    for version, way in ((SCHEMA_VERSION + 1, "update edgeseg"), (SCHEMA_VERSION - 1, "export the bundle again")):
        data = _manifest().to_json() | {"schema_version": version}
        (folder / "manifest.json").write_text(json.dumps(data))
        with pytest.raises(BundleError, match=f"schema version {version}.*{way}"):
            open_bundle(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{}", "no schema_version"),
        (f'{{"schema_version": {SCHEMA_VERSION}}}', "num_classes is missing"),
        ('{"schema_version": true}', "no schema_version"),
        ('{"schema_version": NaN}', "cannot be read .*NaN"),
        ('{"a": 1, "a": 2}', "gives a name twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
        ('{"schema_version": "1"}', "no schema_version"),
    ],
)
def test_a_garbled_manifest_is_one_sentence(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


def test_missing_folder_or_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        open_bundle(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        open_bundle(tmp_path)


# --- nothing wrong passes


_WRONG_FIELDS: list[tuple[str, Any]] = [
    ("name", 3),
    ("name", "x" * 201),
    ("network", None),
    ("num_classes", 0),
    ("num_classes", 2.0),
    ("num_classes", True),
    ("num_classes", 65536),
    ("labels", ["a"]),
    ("labels", ["a", 1]),
    ("labels", ["a", "b", "c"]),
    ("labels", "ab"),
    ("palette", [[0, 0, 0]]),
    ("palette", [[0, 0, 0], [0, 0, 256]]),
    ("palette", [[0, 0, 0], [0, 0]]),
    ("palette", [[0, 0, 0], [0, 0, 1.0]]),
    ("input_size", [32]),
    ("input_size", [0, 64]),
    ("input_size", [65536, 64]),
    ("input_size", ["32", "64"]),
    ("input_size", [33, 64]),
    ("logit_size", [-1, 8]),
    ("divisor", 0),
    ("batch", 0),
    ("batch", "1"),
    ("dynamic", "false"),
    ("dynamic", 0),
    ("precision", "fp8"),
    ("targets", []),
    ("targets", ["ort", "ort"]),
    ("targets", [""]),
    ("targets", "ort"),
    ("input", []),
    ("input", {"channel_order": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]}),
    ("input", {"channel_order": "gbr", "mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1}),
    ("input", {"channel_order": "rgb", "mean": [0, 0, 0], "std": [1, 0, 1], "scale": 1}),
    ("input", {"channel_order": "rgb", "mean": [0, 0, 1e999], "std": [1, 1, 1], "scale": 1}),
    ("input", {"channel_order": "rgb", "mean": ["0", 0, 0], "std": [1, 1, 1], "scale": 1}),
    ("resize", {"mode": "crop", "filter": "linear", "pad_value": [0, 0, 0]}),
    ("resize", {"mode": "stretch", "filter": "lanczos", "pad_value": [0, 0, 0]}),
    ("resize", {"mode": "stretch", "filter": "linear", "pad_value": [0, 0, 300]}),
    ("postprocess", {"align_corners": "false", "threshold": 0.0}),
    ("postprocess", {"align_corners": False, "threshold": None}),
    ("postprocess", {"align_corners": False, "threshold": 0.0, "activation": "relu"}),
    ("postprocess", {"align_corners": False, "threshold": 0.0, "activation": None}),
    ("parity", [{"target": "ort"}]),
    ("parity", {}),
    ("versions", {"a": 1}),
    ("files", {"weights.bin": "0"}),
    ("files", {"../weights.bin": "0" * 64}),
    ("files", {"/etc/passwd": "0" * 64}),
    ("files", {"a//b": "0" * 64}),
    ("files", {"a\\b": "0" * 64}),
    ("files", {"c:x": "0" * 64}),
    ("files", {"a\0b": "0" * 64}),
    ("files", {"x" * 241: "0" * 64}),
    ("sample_input", None),
    ("sample_input", "0" * 63),
    ("sample_input", "G" * 64),
    ("facts", []),
    ("facts", {"precision": {"self_test": -1}}),
    ("facts", {"precision": {"self_test": 1.5}}),
    ("facts", {"precision": 3}),
]


@pytest.mark.parametrize(("field", "value"), _WRONG_FIELDS, ids=[f"{k}={str(v)[:40]}" for k, v in _WRONG_FIELDS])
def test_every_field_is_checked_though_the_hash_fits(folder: Path, field: str, value: Any) -> None:
    from edgeseg.manifest import _digest

    data = {key: item for key, item in open_bundle(folder).manifest.to_json().items() if key != "sha256"}
    data[field] = value
    text = json.dumps({**data, "sha256": _digest(data)})
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert field in message or "cannot be read" in message or "std" in message


@pytest.mark.parametrize("field", sorted(_manifest().to_json()))
def test_a_field_that_is_missing_or_changed_is_found_out(folder: Path, field: str) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    del data[field]
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError):
        open_bundle(folder)


@given(data=st.data())
def test_any_edit_by_hand_is_found_out(data: st.DataObject) -> None:
    """A value replaced by another one of its kind, so that only the hash can tell."""
    plain = _manifest(facts={"paper": "p", "n": 1}).to_json()
    field = data.draw(
        st.sampled_from(["name", "network", "precision", "dynamic", "postprocess", "resize", "facts", "labels"])
    )
    others: dict[str, Any] = {
        "name": "m",
        "network": "other",
        "precision": "int8",
        "dynamic": True,
        "postprocess": {"align_corners": False, "threshold": 0.0},
        "resize": {"mode": "letterbox", "filter": "linear", "pad_value": [0, 0, 0]},
        "facts": {"paper": "q", "n": 1},
        "labels": ["b", "a"],
    }
    with pytest.raises(BundleError, match="SHA-256 differs"):
        Manifest.from_json({**plain, field: others[field]})


_OTHER_CONTRACTS: dict[str, Any] = {
    "name": "other",
    "resize": ResizeRule("letterbox"),
    "postprocess": PostprocessSpec(True, 0.5),
    "labels": ("d", "c", "b", "a"),
    "dynamic": True,
    "input": InputSpec("bgr"),
    "precision": "int8",
}


@pytest.mark.parametrize("field", _OTHER_CONTRACTS)
@pytest.mark.parametrize("target", ["ort", "openvino"])
def test_a_manifest_that_was_written_anew_does_not_fit_the_graphs(tmp_path: Path, field: str, target: str) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", target) if target != "ort" else ("ort",))
    if target == "openvino":  # the ONNX graph says nothing, so that only OpenVINO's own can
        files = {name: value for name, value in bundle.manifest.files.items() if not name.endswith(".onnx")}
        bundle = Bundle(bundle.path, replace(bundle.manifest, files=files))
    changed(bundle, graphs=False, **{field: _OTHER_CONTRACTS[field]})
    with pytest.raises(BundleError, match="was exported with another manifest"):
        open_bundle(bundle.path)


def test_an_activation_is_part_of_the_contract_and_none_is_written_as_before() -> None:
    plain = _manifest()
    assert plain.to_json()["postprocess"] == {"align_corners": True, "threshold": 0.0}
    assert '"postprocess":{"align_corners":true,"threshold":0.0}' in plain.contract()
    soft = replace(plain, postprocess=PostprocessSpec(True, activation="softmax"))
    assert soft.contract() != plain.contract()
    assert Manifest.from_json(soft.to_json()) == soft
    assert Manifest.from_json(plain.to_json()) == plain


@pytest.mark.parametrize(
    ("activation", "told"), [("softmax", "softmax was given for one channel"), ("sigmoid", "threshold is 0 after a")]
)
def test_an_activation_that_cannot_be_is_no_manifest(activation: str, told: str) -> None:
    plain = {**_manifest(num_classes=1).to_json()}
    postprocess = {"align_corners": False, "threshold": 0.0, "activation": activation}
    with pytest.raises(BundleError, match=told):
        Manifest.from_json({**plain, "postprocess": postprocess})


def test_a_graph_without_metadata_is_refused(tmp_path: Path) -> None:
    import onnx

    bundle = make_tiny_bundle(tmp_path)
    model = onnx.load(bundle.path / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, bundle.path / "model.onnx")
    changed(bundle, graphs=False)
    with pytest.raises(BundleError, match="was exported with another manifest"):
        open_bundle(bundle.path)


@pytest.mark.parametrize(
    "rule", [ResizeRule("letterbox"), ResizeRule("stretch", "nearest")], ids=["letterbox", "nearest"]
)
@pytest.mark.parametrize("told", [True, False], ids=["input told", "input not told"])
def test_the_self_test_sees_a_bundle_written_anew_with_another_resize(
    tmp_path: Path, rule: ResizeRule, told: bool
) -> None:
    """Every hash and every graph's metadata made to fit: what is left is the sample, of another size than the graph."""
    others: dict[str, Any] = {} if told else {"sample_input": ""}
    bundle = changed(make_tiny_bundle(tmp_path), resize=rule, **others)
    with Predictor(bundle.path) as predictor:
        if told:
            with pytest.raises(ParityError, match="another network input here than at export"):
                predictor.self_test()
        else:
            assert predictor.self_test().agreement < 0.999


def test_the_self_test_sees_a_bundle_written_anew_with_another_postprocessing(tmp_path: Path) -> None:
    bundle = changed(make_tiny_bundle(tmp_path), postprocess=PostprocessSpec(align_corners=True))
    with Predictor(bundle.path) as predictor:
        outcome = predictor.self_test()
    assert outcome.agreement < 0.999
    assert outcome.pixels == SAMPLE_SIZE[0] * SAMPLE_SIZE[1]


@pytest.mark.parametrize("change", [{"num_classes": 3}, {"input_size": (40, 48)}, {"logit_size": (4, 7)}, {"batch": 2}])
def test_a_graph_of_other_shapes_than_the_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    if "num_classes" in change:
        change |= {"labels": ("a", "b", "c"), "palette": ((0, 0, 0),) * 3}
    bundle = changed(make_tiny_bundle(tmp_path), **change)
    with pytest.raises(BundleError, match="its manifest says"):
        Predictor(bundle.path)


# --- links and devices


def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"graph")
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="a link that leads out of it"):
        open_bundle(folder)
    with pytest.raises(BundleError, match="a link that leads out of it"):
        open_bundle(folder, check=False).file("weights.bin")


def test_a_folder_above_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, targets=("ort", "openvino"))
    (bundle.path / "openvino").rename(tmp_path / "elsewhere")
    (bundle.path / "openvino").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="a link that leads out of it"):
        open_bundle(bundle.path)


def test_links_inside_and_a_bundle_behind_a_link_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.bin").rename(folder / "real.bin")
    (folder / "weights.bin").symlink_to("real.bin")
    (tmp_path / "door").symlink_to(folder)
    assert open_bundle(tmp_path / "door").read("weights.bin") == b"graph"


@pytest.mark.parametrize("name", ["weights.bin", "manifest.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "folder"])
def test_what_is_no_regular_file_is_refused_at_once(folder: Path, name: str, kind: str) -> None:
    file = folder / name
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(name)
    else:
        file.mkdir()
    with pytest.raises(BundleError):
        open_bundle(folder)


def test_a_manifest_of_gigabytes_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("wb") as stream:
        stream.truncate(5 << 30)
    with pytest.raises(BundleError, match="more than 16777216"):
        open_bundle(folder)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_paths_that_cannot_be_are_no_bundles(path: str) -> None:
    with pytest.raises(BundleError, match="no bundle at") as caught:
        open_bundle(path)
    assert len(str(caught.value)) < 400
