"""Proofs per device: kept beside the bundle, of this manifest and machine only, and shown where they matter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg import proofs
from edgeseg.bundle import Bundle, open_bundle
from edgeseg.errors import BundleError, EdgesegError, ParityError, StorageError, TargetUnavailableError
from edgeseg.files import write_text
from edgeseg.predictor import Predictor
from edgeseg.proofs import DeviceProof, host_id, keep_proofs, manifest_digest, proof_places, read_proofs
from edgeseg.proving import devices_here, prove, refuse_wrong
from edgeseg.runtimes import Engine, Probe
from edgeseg.runtimes.ort.session import OrtSession
from tests.runtimes.bundles import SAMPLE_SIZE, changed, make_tiny_bundle

LABELS = SAMPLE_SIZE[0] * SAMPLE_SIZE[1]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path, targets=("ort", "openvino"))


def _proof(bundle: Bundle, **changes: Any) -> DeviceProof:
    plain = DeviceProof(
        manifest=manifest_digest(bundle),
        host=host_id(),
        target="ort",
        device="cpu",
        status="ok",
        date="2030-01-02T03:04:05+00:00",
        pixels=100,
    )
    return replace(plain, **changes)


# --- running


def test_every_device_that_is_here_is_proven(bundle: Bundle) -> None:
    found = {(proof.target, proof.device): proof for proof in prove(bundle)}
    assert list(found) == list(devices_here(bundle))
    for key in (("ort", "CPUExecutionProvider"), ("openvino", "CPU")):
        proof = found[key]
        assert (proof.status, proof.differing, proof.pixels) == ("ok", 0, LABELS)
        assert (proof.manifest, proof.host) == (manifest_digest(bundle), host_id())
        assert proof.logit_error is not None
        assert proof.logit_error <= 1e-4 * proof.logit_range
        assert all((proof.engine, proof.ran_on, proof.precision, proof.edgeseg, proof.machine, proof.date))
    refuse_wrong(bundle, list(found.values()))


def _wrong_openvino(change: Callable[[Any], Any]) -> Any:
    """What `run` of OpenVINO's session is on a device that compiles without an error and computes something else."""
    from edgeseg.runtimes.openvino.session import OpenVinoSession

    right = OpenVinoSession.run

    def run(self: OpenVinoSession, *arguments: Any) -> dict[str, Any]:
        return {name: change(array) for name, array in right(self, *arguments).items()}

    return run


def test_a_device_that_compiles_and_is_wrong_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgeseg.runtimes.openvino.session.OpenVinoSession.run", _wrong_openvino(lambda logits: -logits)
    )
    found = prove(bundle)
    assert {proof.target: proof.status for proof in found} == {"ort": "ok", "openvino": "differs"}
    with pytest.raises(
        ParityError, match=r"other masks than PyTorch's on openvino on CPU \(\d+ of \d+ labels\)"
    ) as error:
        refuse_wrong(bundle, found)
    assert error.value.exit_code == 4


def test_logits_that_are_no_numbers_are_no_proof(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels may be right all the same: an argmax of NaN is 0."""
    monkeypatch.setattr(
        "edgeseg.predictor.Predictor.sample_logits", lambda self: np.full((1, 1, 1), np.nan, np.float32)
    )
    found = prove(bundle)
    assert {proof.status for proof in found} == {"failed"}
    with pytest.raises(ParityError, match="not proven on ort on CPUExecutionProvider: the logits of the sample"):
        refuse_wrong(bundle, found)


def test_what_is_not_here_is_absent_and_no_fault_beside_others(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Engine) -> Probe:
        return Probe(True, devices=("CPU", "GPU.7")) if self.name == "openvino" else Probe(True, devices=("cpu",))

    monkeypatch.setattr(Engine, "look", lost)
    found = prove(bundle)
    assert [(proof.device, proof.status) for proof in found] == [("cpu", "ok"), ("CPU", "ok"), ("GPU.7", "absent")]
    assert "GPU.7" in found[-1].reason
    refuse_wrong(bundle, found)
    with pytest.raises(TargetUnavailableError, match="proven on no device"):
        refuse_wrong(bundle, found[2:])


def test_words_for_a_device_are_those_of_its_option(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Engine, "look", lambda self: Probe(True, devices=("NVIDIA Orin, sm_87", "Other"), device_words=("0", "1"))
    )
    assert list(devices_here(bundle)) == [("ort", "0"), ("ort", "1"), ("openvino", "0"), ("openvino", "1")]


# --- keeping


def test_kept_beside_the_bundle_and_not_in_it(bundle: Bundle, state: Path) -> None:
    before = sorted(bundle.path.rglob("*"))
    file = keep_proofs(bundle, [_proof(bundle)])
    assert file == bundle.path.parent / "tiny.edgeseg.proofs.json"
    assert sorted(bundle.path.rglob("*")) == before
    assert read_proofs(bundle) == (_proof(bundle),)
    assert not state.exists()
    open_bundle(bundle.path)


def test_the_same_device_is_proven_anew_and_others_stay(bundle: Bundle) -> None:
    other = _proof(bundle, host="f" * 16, status="absent", reason="no driver", pixels=0)
    keep_proofs(bundle, [_proof(bundle, differing=3), other])
    keep_proofs(bundle, [_proof(bundle, logit_error=0.5)])
    assert set(read_proofs(bundle)) == {other, _proof(bundle, logit_error=0.5)}


def test_where_the_place_cannot_be_written_the_state_folder_has_them(
    bundle: Bundle, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        if path.parent == bundle.path.parent:
            raise StorageError("read-only file system")
        write_text(path, text)

    monkeypatch.setattr(proofs, "write_text", refuse)
    file = keep_proofs(bundle, [_proof(bundle)])
    assert file == state / "edgeseg" / "proofs" / f"{manifest_digest(bundle)}.json"
    assert read_proofs(bundle) == (_proof(bundle),)


def test_a_proof_of_another_bundle_in_the_same_place_is_not_taken(bundle: Bundle) -> None:
    keep_proofs(bundle, [_proof(bundle)])
    exported_again = changed(bundle, facts={"exported": "again"})
    assert read_proofs(exported_again) == ()
    with Predictor(exported_again) as predictor:
        assert predictor.info.proof == ""


_BAD: tuple[tuple[str, Any], ...] = (
    ("schema_version", 2),
    ("proofs", 3),
    ("proofs", [{"manifest": "0" * 64}]),
    ("proofs", ["x"]),
)


@pytest.mark.parametrize(("name", "value"), _BAD)
def test_what_is_no_file_of_proofs_is_said(bundle: Bundle, name: str, value: Any) -> None:
    file = proof_places(bundle)[0]
    file.write_text(json.dumps({"schema_version": 1, "proofs": [], name: value}))
    for use in (lambda: read_proofs(bundle), lambda: keep_proofs(bundle, [_proof(bundle)])):
        with pytest.raises(BundleError, match=r"is no file of proofs .* run `edgeseg doctor --verify` again"):
            use()
    with Predictor(bundle) as predictor:  # goes on, and says so
        (note,) = predictor.info.notes
    assert "is no file of proofs" in note


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("manifest", "0"),
        ("status", "fine"),
        ("pixels", -1),
        ("differing", 101),
        ("minimum", 2.0),
        ("logit_error", "small"),
        ("reason", None),
        ("date", 3),
    ],
)
def test_every_field_is_checked(bundle: Bundle, field: str, value: Any) -> None:
    entry = {**asdict(_proof(bundle)), field: value}
    proof_places(bundle)[0].write_text(json.dumps({"schema_version": 1, "proofs": [entry]}))
    with pytest.raises(BundleError, match=field):
        read_proofs(bundle)


# --- showing


def test_a_predictor_tells_the_proof_of_its_device(bundle: Bundle) -> None:
    keep_proofs(bundle, prove(bundle))
    for target in ("ort", "openvino"):
        with Predictor(bundle, target) as predictor:
            assert predictor.info.proof.startswith("proven 20")
            assert f"0 of {LABELS} labels differ" in predictor.info.proof
            assert predictor.info.notes == ()


def test_a_device_that_was_wrong_is_a_note(bundle: Bundle) -> None:
    found = [replace(proof, status="differs", differing=7) for proof in prove(bundle)]
    keep_proofs(bundle, found)
    with Predictor(bundle) as predictor:
        (note,) = predictor.info.notes
    assert "CPUExecutionProvider was proven wrong for this bundle" in note


@pytest.mark.parametrize("change", [{"host": "0" * 16}, {"engine": "onnxruntime 0.1"}, {"precision": "fp16"}])
def test_a_proof_under_other_conditions_is_none(bundle: Bundle, change: dict[str, Any]) -> None:
    keep_proofs(bundle, [replace(proof, **change) for proof in prove(bundle)])
    with Predictor(bundle) as predictor:
        assert predictor.info.proof == ""


def test_notes_that_come_while_it_runs_are_told(bundle: Bundle) -> None:
    with Predictor(bundle) as predictor:
        session = predictor._session
        assert isinstance(session, OrtSession)
        session.info = replace(session.info, notes=("later",))
        assert predictor.info.notes == ("later",)


def test_a_copied_bundle_takes_its_proofs_along(bundle: Bundle, tmp_path: Path) -> None:
    keep_proofs(bundle, [_proof(bundle)])
    (tmp_path / "device").mkdir()
    copied = tmp_path / "device" / bundle.path.name
    shutil.copytree(bundle.path, copied)
    assert read_proofs(open_bundle(copied)) == ()
    shutil.copy(proof_places(bundle)[0], copied.parent)
    assert read_proofs(open_bundle(copied)) == (_proof(bundle),)


def test_an_engine_that_fails_is_one_proof_and_the_others_go_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise EdgesegError("the plugin crashed; update the driver")

    monkeypatch.setattr("edgeseg.runtimes.openvino.session.open_session", broken)
    found = {proof.target: proof for proof in prove(bundle)}
    assert (found["ort"].status, found["openvino"].status) == ("ok", "failed")
    assert found["openvino"].reason == "the plugin crashed; update the driver"
