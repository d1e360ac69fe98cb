"""Proofs per device: what the self test of a bundle gave on each device of a machine, kept beside the bundle.

``edgeseg doctor --verify NAME.edgeseg`` runs them (`edgeseg.proving`) and writes ``NAME.edgeseg.proofs.json`` beside
the folder, never into it; where that place cannot be written, a file in the user's state folder. A proof holds for the
manifest, the machine, the device, the engine's version and the arithmetic that it was made with, and for nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, StorageError
from edgeseg.fields import FieldError, Fields, parse_object
from edgeseg.files import storage_errors, write_text
from edgeseg.text import first_line, one_line

__all__ = ["SCHEMA_VERSION", "DeviceProof", "host_id", "keep_proofs", "manifest_digest", "proof_places", "read_proofs"]

SCHEMA_VERSION = 1
_MOST_PROOFS, _MOST_BYTES = 1000, 4 << 20
_STATUSES = ("ok", "differs", "absent", "failed")
_SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True, kw_only=True)
class DeviceProof:
    """What the self test gave on one device of one machine.

    Attributes:
        manifest: SHA-256 of the bundle's manifest.
        host: Stands for the machine (`host_id`).
        machine: Processor and architecture, or board, in words.
        target: Engine's name.
        device: Word by which the device was asked for; empty where the engine has only one.
        status: ``ok``; ``differs`` (labels below `minimum`); ``absent`` (the machine lacks something for it);
            ``failed`` (it was there, and did not run the bundle).
        ran_on: Device as the engine reports it.
        engine: Engine and version.
        driver: Version of the device's driver, and CUDA's; empty where there is none to ask.
        precision: Of the arithmetic.
        edgeseg: Version.
        date: Day and time, UTC, ISO 8601.
        pixels: Labels compared.
        differing: Labels that are not fp32 PyTorch's.
        minimum: Share that had to agree.
        logit_error: Largest absolute difference of the sample's logits from those of ONNX Runtime on the CPU; None
            where they were not compared.
        logit_range: Largest minus smallest logit, for scale.
        reason: Why it was absent or failed.

    Example:
        >>> proof = DeviceProof(manifest="0" * 64, host="h", target="ort", device="cpu", status="ok", pixels=4)
        >>> proof.agreement
        1.0
    """

    manifest: str
    host: str
    target: str
    device: str
    status: str
    machine: str = ""
    ran_on: str = ""
    engine: str = ""
    driver: str = ""
    precision: str = ""
    edgeseg: str = ""
    date: str = ""
    pixels: int = 0
    differing: int = 0
    minimum: float = 0.0
    logit_error: float | None = None
    logit_range: float = 0.0
    reason: str = ""

    @property
    def agreement(self) -> float:
        """Share of labels that are PyTorch's, 0..1; 0 where nothing ran."""
        return 1.0 - self.differing / self.pixels if self.pixels else 0.0

    @property
    def words(self) -> str:
        """The outcome in a clause, with its day."""
        if self.status in ("absent", "failed"):
            return f"{self.status} {self.date[:10]}: {self.reason}"
        counts = f"{self.differing} of {self.pixels} labels differ"
        return f"{'proven' if self.status == 'ok' else 'WRONG'} {self.date[:10]}: {counts}"

    @property
    def _place(self) -> tuple[str, str, str, str]:
        return self.manifest, self.host, self.target, self.device

    @classmethod
    def from_fields(cls, fields: Fields) -> DeviceProof:
        """Read from a file of proofs.

        Raises:
            FieldError: A field that is missing or has a wrong value.
        """
        texts = ("host", "machine", "target", "device", "ran_on", "engine", "driver", "precision", "edgeseg", "date")
        pixels = fields.integer("pixels", 0, 2**53)
        return cls(
            **{name: fields.text(name) for name in texts},
            manifest=fields.text("manifest", pattern=_SHA256),
            status=fields.choice("status", _STATUSES),
            pixels=pixels,
            differing=fields.integer("differing", 0, pixels),
            minimum=fields.number("minimum", 0.0, 1.0),
            logit_error=None if fields.value("logit_error") is None else fields.number("logit_error", 0.0),
            logit_range=fields.number("logit_range", 0.0),
            reason=fields.text("reason", most=4000),
        )


def manifest_digest(bundle: Bundle) -> str:
    """SHA-256 of a bundle's manifest, and so of everything in the bundle."""
    return str(bundle.manifest.to_json()["sha256"])


def host_id() -> str:
    """Stand for this machine in a file of proofs: a hash of the system's machine id, or of its name."""
    try:
        name = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        name = ""
    return hashlib.sha256(f"edgeseg {name or platform.node()}".encode()).hexdigest()[:16]


def proof_places(bundle: Bundle) -> tuple[Path, ...]:
    """Where proofs of a bundle may lie: beside it, and in the user's state folder, where the user has one."""
    folder = Path(os.path.abspath(bundle.path))
    beside = folder.parent / f"{folder.name}.proofs.json"
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    if not os.path.isabs(state):  # a user of a container, without HOME and an entry in the list of users
        return (beside,)
    return beside, Path(state, "edgeseg", "proofs", f"{manifest_digest(bundle)}.json")


def read_proofs(bundle: Bundle) -> tuple[DeviceProof, ...]:
    """Read the proofs of this manifest that are kept, of every machine; those of another manifest are left out.

    Raises:
        BundleError: A file of proofs that cannot be read.
    """
    digest = manifest_digest(bundle)
    found = {proof._place: proof for place in reversed(proof_places(bundle)) for proof in _read(place)}
    return tuple(proof for proof in found.values() if proof.manifest == digest)


def keep_proofs(bundle: Bundle, proofs: Iterable[DeviceProof]) -> Path:
    """Keep proofs in the place of those of the same manifest, machine and device; others stay.

    Returns:
        The file, written whole or not at all.

    Raises:
        BundleError: What is there is no file of proofs.
        StorageError: Neither place can be written.
    """
    new = {proof._place: proof for proof in proofs}
    beside, *elsewhere = proof_places(bundle)
    try:
        _write(beside, new)
    except StorageError:
        if not elsewhere:
            raise
        (state,) = elsewhere
        with storage_errors(state):
            state.parent.mkdir(parents=True, exist_ok=True)
        _write(state, new)
        return state
    return beside


def _write(file: Path, new: dict[tuple[str, str, str, str], DeviceProof]) -> None:
    kept = {proof._place: proof for proof in _read(file)} | new
    data = {"schema_version": SCHEMA_VERSION, "proofs": [asdict(proof) for proof in [*kept.values()][-_MOST_PROOFS:]]}
    write_text(file, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _read(file: Path) -> list[DeviceProof]:
    """Read a file of proofs; none where there is no file."""
    if not os.path.lexists(file):
        return []
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise FieldError(f"it has more than {_MOST_BYTES} bytes")
        fields = Fields(parse_object(file.read_text(encoding="utf-8")))
        fields.integer("schema_version", SCHEMA_VERSION, SCHEMA_VERSION)
        return [_proof(entry) for entry in fields.items("proofs", 0, _MOST_PROOFS)]
    except (OSError, ValueError) as error:
        raise BundleError(
            f"'{one_line(file)}' is no file of proofs ({first_line(error, 200)}); remove it, and run "
            "`edgeseg doctor --verify` again"
        ) from error


def _proof(entry: Any) -> DeviceProof:
    return DeviceProof.from_fields(Fields(entry, "proofs"))
