"""Run a bundle's self test on every engine and device that is here, for ``edgeseg doctor --verify``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import __version__
from edgeseg.bench.machine import Machine, describe_machine
from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError, ParityError, TargetUnavailableError
from edgeseg.predictor import Predictor
from edgeseg.proofs import DeviceProof, host_id, manifest_digest
from edgeseg.runtimes import RuntimeOptions, engine
from edgeseg.text import one_line

__all__ = ["devices_here", "prove", "refuse_wrong"]

_REFERENCE = ("ort", "cpu")


def devices_here(bundle: Bundle) -> Iterator[tuple[str, str | None]]:
    """Yield every target that the bundle was exported for with each of its devices here, as `--device` takes them.

    A target that is not here, and one whose devices have no names, has None.
    """
    for target in bundle.manifest.targets:
        try:
            record = engine(target)
        except EdgesegError:  # of a package that is not installed here; opening says so
            yield target, None
            continue
        probe = record.look()
        words = (probe.device_words or probe.devices) if "device" in record.options else ()
        yield from ((target, word) for word in words or (None,))


def prove(bundle: Bundle, *, network: str | None = None, told: Callable[[str], object] = str) -> list[DeviceProof]:
    """Run the self test everywhere, and compare each device's logits of the sample with ONNX Runtime's on the CPU.

    Args:
        bundle: An opened bundle.
        network: ``package.module:factory`` for the ``torch`` target.
        told: Called with what is about to run.

    Returns:
        One proof a device, in the order of `devices_here`; nothing is raised for one that is wrong.
    """
    machine = describe_machine()
    reference = _reference(bundle)
    proofs: list[DeviceProof] = []
    for target, device in devices_here(bundle):
        told(f"{target} on {device or 'its device'}")
        options = RuntimeOptions(device=device)
        if network is not None and "network" in engine(target).options:
            options = replace(options, network=network)
        proofs.append(_proof(bundle, target, options, machine, reference))
    return proofs


def refuse_wrong(bundle: Bundle, proofs: list[DeviceProof]) -> None:
    """Refuse devices whose masks are wrong, then those that did not run.

    Raises:
        ParityError: Some device's labels differ; names each.
        EdgesegError: Some device failed.
        TargetUnavailableError: There was none to prove.
    """
    named = one_line(bundle.manifest.name)
    wrong = [proof for proof in proofs if proof.status == "differs"]
    if wrong:
        words = ", ".join(f"{_where(proof)} ({proof.differing} of {proof.pixels} labels)" for proof in wrong)
        raise ParityError(f"{named} gives other masks than PyTorch's on {words}; do not use these devices for it")
    failed = [proof for proof in proofs if proof.status == "failed"]
    if failed:
        raise ParityError(f"{named} is not proven on {_where(failed[0])}: {failed[0].reason}")
    if not any(proof.status == "ok" for proof in proofs):
        raise TargetUnavailableError(f"{named} was proven on no device: {proofs[0].reason}")


def _where(proof: DeviceProof) -> str:
    device = proof.ran_on or proof.device
    return f"{proof.target} on {device}" if device else proof.target


def _reference(bundle: Bundle) -> NDArray[np.float32] | None:
    """Logits of the sample by ONNX Runtime on the CPU; None where it or the bundle's graph for it is not here."""
    target, device = _REFERENCE
    if target not in bundle.manifest.targets:
        return None
    try:
        with Predictor(bundle, target, options=RuntimeOptions(device=device)) as predictor:
            return predictor.sample_logits()
    except EdgesegError:  # the proof of this device says what it is
        return None


def _proof(
    bundle: Bundle, target: str, options: RuntimeOptions, machine: Machine, reference: NDArray[np.float32] | None
) -> DeviceProof:
    known: dict[str, Any] = {
        "manifest": manifest_digest(bundle),
        "host": host_id(),
        "machine": ", ".join(filter(None, (machine.board, machine.cpu, machine.architecture))),
        "target": target,
        "device": options.device or "",
        "edgeseg": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "minimum": bundle.manifest.self_test,
    }
    try:
        with Predictor(bundle, target, options=options) as predictor:
            info = predictor.info
            known |= {"ran_on": info.device, "engine": info.engine, "precision": info.precision}
            known["driver"] = _driver(machine) if target.startswith("trt") or "CUDA" in info.device.upper() else ""
            outcome = predictor.self_test()
            known |= _logit_error(predictor, reference)
    except TargetUnavailableError as error:
        return DeviceProof(**known, status="absent", reason=str(error))
    except EdgesegError as error:
        return DeviceProof(**known, status="failed", reason=str(error))
    status = "ok" if outcome.agreement >= bundle.manifest.self_test else "differs"
    return DeviceProof(**known, status=status, pixels=outcome.pixels, differing=outcome.differing)


def _driver(machine: Machine) -> str:
    words = (machine.gpu_driver and f"NVIDIA {machine.gpu_driver}", machine.cuda and f"CUDA {machine.cuda}")
    return ", ".join(filter(None, words))


def _logit_error(predictor: Predictor, reference: NDArray[np.float32] | None) -> dict[str, float]:
    if reference is None:
        return {}
    logits = predictor.sample_logits()
    if not np.isfinite(logits).all():
        raise ParityError("the logits of the sample are no finite numbers; do not use this device for it")
    if logits.shape != reference.shape:  # a graph of another stride, whose labels alone can be compared
        return {}
    return {"logit_error": float(np.abs(logits - reference).max()), "logit_range": float(np.ptp(reference))}
