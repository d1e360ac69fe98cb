"""``edgeseg doctor``: what this machine can run, and why not the rest, and what bundles are proven on.

Nothing is changed; ``--verify`` keeps a file of proofs beside each bundle.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli._shared import console, errors, print_json, table
from edgeseg.cli.options import Json, Network
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.proofs import DeviceProof

__all__ = ["doctor"]


def doctor(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            help="NAME.edgeseg folders to look at as well: sound, signed or not, and on which devices proven."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Prove the bundles on every engine and device that is here, and keep it.")
    ] = False,
    network: Network = None,
    as_json: Json = False,
) -> None:
    """Say which targets this machine can run, on which devices, and what the others lack."""
    from edgeseg.errors import UsageError

    if not bundles and (verify or network is not None):
        raise UsageError("--verify and --network are about a bundle; name it: edgeseg doctor --verify NAME.edgeseg")
    proven = {str(bundle): _verified(bundle, network) for bundle in bundles or []} if verify else {}
    states = {str(bundle): _state(bundle) for bundle in bundles or []}
    kept = {str(bundle): _kept(bundle) for bundle in bundles or []}
    if as_json:
        _print_json(states, kept)
    else:
        _print_machine()
        for bundle, state in states.items():
            console().print(f"{bundle}: {state}", soft_wrap=True)
            _print_proofs(kept[bundle])
        files = ", ".join(f"'{one_line(file)}'" for _, _, file in proven.values())
        ending = f"Nothing was installed; the proofs are in {files}." if verify else "Nothing was installed or changed."
        console().print(ending, soft_wrap=True)
    _refuse_wrong([(opened, proofs) for opened, proofs, _ in proven.values()])


def _verified(path: Path, network: str | None) -> tuple[Bundle, list[DeviceProof], Path]:
    """Prove a bundle on everything that is here, and keep the proofs; also return their file."""
    from edgeseg.bundle import open_bundle
    from edgeseg.proofs import keep_proofs
    from edgeseg.proving import prove

    opened = open_bundle(path)
    with errors().status("proving") as status:
        proofs = prove(
            opened, network=network, told=lambda where: status.update(f"{one_line(opened.manifest.name)}: {where}")
        )
    return opened, proofs, keep_proofs(opened, proofs)


def _refuse_wrong(proven: list[tuple[Bundle, list[DeviceProof]]]) -> None:
    from edgeseg.proving import refuse_wrong

    for opened, proofs in proven:
        refuse_wrong(opened, proofs)


def _kept(path: Path) -> list[DeviceProof] | str:
    """The kept proofs of a bundle, or why there is nothing to say."""
    from edgeseg.bundle import open_bundle
    from edgeseg.errors import EdgesegError
    from edgeseg.proofs import read_proofs

    try:
        return list(read_proofs(open_bundle(path, check=False)))
    except EdgesegError as error:
        return str(error)


def _print_proofs(kept: list[DeviceProof] | str) -> None:
    from edgeseg.proofs import host_id

    if isinstance(kept, str):
        console().print(f"  {kept}", soft_wrap=True)
        return
    if not kept:
        console().print("  proven on no device (`edgeseg doctor --verify` does)", soft_wrap=True)
        return
    here = host_id()
    listed = table("  target", "device", "outcome", "logit error", "engine and driver", "precision", "machine")
    for proof in kept:
        machine = "this" if proof.host == here else f"another: {proof.machine}"
        error = "-" if proof.logit_error is None else f"{proof.logit_error:.1e} of {proof.logit_range:.1f}"
        engine = ", ".join(filter(None, (proof.engine, proof.driver)))
        row = (proof.ran_on or proof.device, proof.words, error, engine, proof.precision, machine)
        listed.add_row(f"  {proof.target}", *row)
    console().print(listed)


def _print_json(states: dict[str, str], kept: dict[str, list[DeviceProof] | str]) -> None:
    from edgeseg.doctor import probe_machine, probe_targets
    from edgeseg.runtimes.registry import engines

    descriptions = {record.name: record.description for record in engines()}
    data = {
        "machine": asdict(probe_machine()),
        "targets": [
            {"target": name, "description": descriptions.get(name, ""), **asdict(probe)}
            for name, probe in probe_targets().items()
        ],
        "bundles": states,
        "proofs": {
            bundle: proofs if isinstance(proofs, str) else [asdict(proof) for proof in proofs]
            for bundle, proofs in kept.items()
        },
    }
    print_json(data, indent=2)


def _print_machine() -> None:
    from edgeseg.doctor import probe_machine, probe_targets
    from edgeseg.runtimes.registry import engines

    screen, descriptions = console(), {record.name: record.description for record in engines()}
    for name, value in asdict(probe_machine()).items():
        if value not in (None, "", (), []):
            screen.print(f"{name.replace('_', ' ')}: {one_line(_words(name, value), 1000)}", soft_wrap=True)
    listed = table("target", "usable", "engine", "devices", "why not, and what to do")
    for name, probe in probe_targets().items():
        told = "; ".join(part for part in (probe.reason, probe.advice) if part)
        usable, engine = "yes" if probe.usable else "no", probe.engine or descriptions.get(name, "")
        listed.add_row(name, usable, engine, ", ".join(probe.devices), told)
    screen.print(listed)


def _state(bundle: Path) -> str:
    """Whether a bundle is sound and signed, in words."""
    from edgeseg.bundle import open_bundle
    from edgeseg.errors import EdgesegError
    from edgeseg.signing import signature_of

    try:
        opened = open_bundle(bundle)
    except EdgesegError as error:
        return str(error)
    signed = "signed (`edgeseg verify --key` tells by whom)" if signature_of(bundle) else "not signed"
    return f"sound, {signed}, exported for {', '.join(opened.manifest.targets)}"


def _words(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value / 2**30:.1f} GiB" if name.startswith("memory") else str(value)
