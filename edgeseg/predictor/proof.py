"""What the kept proof of a bundle says of the session that a Predictor opened."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError
from edgeseg.proofs import host_id, read_proofs
from edgeseg.runtimes import SessionInfo
from edgeseg.text import one_line

__all__ = ["KeptProof"]


@dataclass(frozen=True)
class KeptProof:
    """The latest proof of a bundle on the device that a session runs on.

    Attributes:
        words: Its outcome; empty where there is none of this manifest, machine, device, engine and arithmetic.
        notes: What the user must see of it: that it was wrong, or cannot be read.
    """

    words: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: SessionInfo, bundle: Bundle) -> KeptProof:
        """Look for it beside the bundle."""
        try:
            kept = read_proofs(bundle)
        except BundleError as error:
            return cls(notes=(str(error),))
        wanted = (host_id(), info.target, info.device, info.engine, info.precision) if kept else ()
        same = [p for p in kept if (p.host, p.target, p.ran_on, p.engine, p.precision) == wanted]
        if not same:
            return cls()
        latest = max(same, key=lambda proof: proof.date)
        wrong = f"{one_line(latest.ran_on)} was proven wrong for this bundle ({latest.words}); do not use its masks"
        return cls(latest.words, (wrong,) if latest.status == "differs" else ())

    def added_to(self, info: SessionInfo) -> SessionInfo:
        """Copy of what a session reports, with the proof."""
        return dataclasses.replace(info, proof=self.words, notes=(*info.notes, *self.notes))
