"""Options that several commands take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BundleFolder",
    "Device",
    "EngineOption",
    "Json",
    "Limit",
    "MaxPixels",
    "Network",
    "Quiet",
    "Strict",
    "Threads",
]

BundleFolder = Annotated[Path, typer.Argument(help="The NAME.edgeseg folder.", show_default=False)]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of the engine.")]
Device = Annotated[
    str | None, typer.Option("--device", help="Device or provider of the engine, such as cpu, cuda or GPU.")
]
Network = Annotated[
    str | None,
    typer.Option("--network", help="package.module:factory of your own network, for the torch target."),
]
EngineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-option",
        metavar="NAME=VALUE",
        help="Option of the engine, such as cuda_graph=no; may be given again. An engine says which it takes.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many pictures.")]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Largest height x width of a picture file, in pixels.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Take damaged pictures for failures.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
