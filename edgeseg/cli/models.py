"""``edgeseg models``: the networks and the facts people choose by. It needs no torch, except to count at a size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli._shared import console, optional_size, print_json, size_text, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeseg.specs import Size

__all__ = ["models"]

_FACTS = (
    "name", "system", "year", "parameters", "macs", "size", "classes", "labels", "divisor", "accuracy",
    "weights_licence", "paper", "source", "notes",
)  # fmt: skip


def models(
    pattern: Annotated[
        str, typer.Argument(help="Shell pattern on names, such as 'espnet*'; a plain word matches inside.")
    ] = "*",
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH at which MACs are counted (needs torch); default each network's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    macs: Annotated[bool, typer.Option(help="Tell MACs; at a --size every network listed is built for them.")] = True,
) -> None:
    """List networks: name, system, year, parameters, MACs at a size, published accuracy, notes."""
    from edgeseg.models.facts import read_rows

    wanted, known = optional_size(size), read_rows()
    names = _matching(pattern, known)
    if wanted is not None and macs:
        from edgeseg._optional import require

        require("torch", extra="export", why="counting MACs at a size")
    rows = [_row(known[name], wanted, macs) for name in names]
    if as_json:
        print_json(rows, indent=2)
    elif len(rows) == 1:
        _print_one(rows[0])
    else:
        _print_table(rows)


def _matching(pattern: str, known: Iterable[str]) -> list[str]:
    """List the names that a shell pattern, or a word inside them, matches."""
    import fnmatch

    from edgeseg.errors import UnknownNameError

    known = list(known)
    glob = pattern if pattern in known or any(c in pattern for c in "*?[") else f"*{pattern}*"
    names = fnmatch.filter(known, glob)
    if not names:
        raise UnknownNameError("network", pattern, known, hint="`edgeseg models` lists them.")
    return names


def _row(stored: dict[str, Any], size: Size | None, count: bool) -> dict[str, Any]:
    """Give the facts of a network, with MACs at `size`, or at its own size where it does not take that one."""
    row = {key: stored[key] for key in _FACTS}
    if not count:
        return {**row, "macs": None, "size": row["size"] if size is None else list(size)}
    if size is None or any(side % stored["divisor"] or side < stored["min_side"] for side in size):
        return row
    from edgeseg.models.facts import count_or_none

    return {**row, "macs": count_or_none(row["name"], size), "size": list(size)}


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print one line per network; accuracy and notes are cut at the edge (`edgeseg models NAME` has them whole)."""
    titles = ("name", "system", "year", "params", "MACs", "at", "classes", "published accuracy", "notes")
    listed = table(*titles, right=("year", "params", "MACs", "classes"))
    lines = [
        (row["name"], row["system"], str(row["year"]), *_figures(row), row["accuracy"], row["notes"]) for row in rows
    ]
    for index, column in enumerate(listed.columns):
        column.no_wrap, column.overflow = True, "ellipsis"
        widest = max(len(line[index]) for line in lines)
        column.min_width = max(widest, len(titles[index])) if index < 7 else 9
    for line in lines:
        listed.add_row(*line)
    console().print(listed)
    console().print(f"{len(rows)} networks; sizes are height x width; `edgeseg models NAME` has every fact")


def _figures(row: dict[str, Any]) -> tuple[str, str, str, str]:
    macs = "-" if row["macs"] is None else f"{row['macs'] / 1e9:.3f} G"
    at = size_text((row["size"][0], row["size"][1]))
    return f"{row['parameters'] / 1e6:.3f} M", macs, at, str(row["classes"])


def _print_one(row: dict[str, Any]) -> None:
    parameters, macs, at, classes = _figures(row)
    facts = {**row, "parameters": parameters, "macs": f"{macs} at {at}", "classes": classes, "size": at}
    for key, value in facts.items():
        if value not in ("", None):
            console().print(f"{key.replace('_', ' ')}: {value}", soft_wrap=True)
