"""``edgeseg models``: what can be built, with the facts people choose by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli._shared import console, optional_size, size_text, table

if TYPE_CHECKING:
    from edgeseg.models import ModelSpec
    from edgeseg.specs import Size

__all__ = ["models"]


def models(
    pattern: Annotated[
        str, typer.Argument(help="Shell pattern on names, such as 'espnet*'; a plain word matches inside.")
    ] = "*",
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH at which MACs are counted; default each network's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    macs: Annotated[bool, typer.Option(help="Count MACs (builds every network listed).")] = True,
) -> None:
    """List networks: name, system, year, parameters, MACs at a size, published accuracy, notes."""
    from edgeseg._optional import require

    require("torch", extra="export", why="listing networks")
    from edgeseg.errors import UnknownNameError
    from edgeseg.models import list_models, model_spec

    wanted = optional_size(size)
    known = list_models()
    glob = pattern if pattern in known or any(c in pattern for c in "*?[") else f"*{pattern}*"
    names = list_models(glob)
    if not names:
        raise UnknownNameError("network", pattern, known, hint="`edgeseg models` lists them.")
    rows = [_row(model_spec(name), wanted, macs) for name in names]
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif len(rows) == 1:
        _print_one(rows[0])
    else:
        _print_table(rows)


def _row(spec: ModelSpec, size: Size | None, count: bool) -> dict[str, Any]:
    at, macs = _count(spec, size) if count else (size or spec.input_size, None)
    return {
        "name": spec.name,
        "system": spec.system,
        "year": spec.year,
        "parameters": spec.params,
        "macs": macs,
        "size": list(at),
        "classes": spec.num_classes,
        "labels": spec.labels,
        "divisor": spec.divisor,
        "accuracy": spec.accuracy,
        "weights_licence": spec.weights_licence,
        "paper": spec.paper,
        "source": spec.source,
        "notes": spec.notes,
    }


def _count(spec: ModelSpec, size: Size | None) -> tuple[Size, int | None]:
    """MACs at the size, or at the network's own where it does not take the one asked for."""
    from edgeseg.models.count import count_macs
    from edgeseg.models.registry import build_on_meta

    at = size or spec.input_size
    if any(side % spec.divisor or side < spec.min_side for side in at):
        at = spec.input_size
    try:
        return at, count_macs(build_on_meta(spec.name), at)
    except RuntimeError:  # too small for its pooling: shown as "-"
        return at, None


def _print_table(rows: list[dict[str, Any]]) -> None:
    """One line per network; accuracy and notes are cut at the edge (`edgeseg models NAME` has them whole)."""
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
