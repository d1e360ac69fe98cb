"""``edgeseg doctor``: what this machine can run, and why not the rest. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli._shared import console, print_json, table
from edgeseg.text import one_line

__all__ = ["doctor"]


def doctor(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="NAME.edgeseg folders to look at as well: sound, and signed or not.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which targets this machine can run, on which devices, and what the others lack."""
    from edgeseg.doctor import probe_machine, probe_targets
    from edgeseg.runtimes.registry import engines

    machine, targets = probe_machine(), probe_targets()
    descriptions = {record.name: record.description for record in engines()}
    states = {str(bundle): _state(bundle) for bundle in bundles or []}
    if as_json:
        data = {
            "machine": asdict(machine),
            "targets": [
                {"target": name, "description": descriptions.get(name, ""), **asdict(probe)}
                for name, probe in targets.items()
            ],
            "bundles": states,
        }
        print_json(data, indent=2)
        return
    screen = console()
    for name, value in asdict(machine).items():
        if value not in (None, "", (), []):
            screen.print(f"{name.replace('_', ' ')}: {one_line(_words(name, value), 1000)}", soft_wrap=True)
    listed = table("target", "usable", "engine", "devices", "why not, and what to do")
    for name, probe in targets.items():
        told = "; ".join(part for part in (probe.reason, probe.advice) if part)
        listed.add_row(
            name,
            "yes" if probe.usable else "no",
            probe.engine or descriptions.get(name, ""),
            ", ".join(probe.devices),
            told,
        )
    screen.print(listed)
    for bundle, state in states.items():
        screen.print(f"{bundle}: {state}", soft_wrap=True)
    screen.print("Nothing was installed or changed.")


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
