"""``edgeseg doctor``: what this machine can run, and why not the rest. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from edgeseg.cli._shared import console, table

__all__ = ["doctor"]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say which targets this machine can run, on which devices, and what the others lack."""
    from edgeseg.runtimes.probe import probe_machine, probe_targets

    machine, targets = probe_machine(), probe_targets()
    if as_json:
        import json

        data = {"machine": asdict(machine), "targets": [asdict(target) for target in targets]}
        typer.echo(json.dumps(data, indent=2))
        return
    screen = console()
    for name, value in asdict(machine).items():
        if value not in (None, "", (), []):
            screen.print(f"{name.replace('_', ' ')}: {_words(name, value)}", soft_wrap=True)
    listed = table("target", "usable", "engine", "devices", "why not, and what to do")
    for target in targets:
        told = "; ".join(part for part in (target.reason, target.advice) if part)
        listed.add_row(target.target, "yes" if target.usable else "no", target.engine, ", ".join(target.devices), told)
    screen.print(listed)
    screen.print("Nothing was installed or changed.")


def _words(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value / 2**30:.1f} GiB" if name.startswith("memory") else str(value)
