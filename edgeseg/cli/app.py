"""The typer application: which command lives where."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeseg.cli.benchmark import benchmark_app
from edgeseg.cli.doctor import doctor
from edgeseg.cli.eval import evaluate
from edgeseg.cli.export import export
from edgeseg.cli.export_numbers import NumbersCommand
from edgeseg.cli.gpu_check import gpu_check
from edgeseg.cli.inspect import inspect
from edgeseg.cli.models import models
from edgeseg.cli.predict import predict
from edgeseg.cli.sign import sign
from edgeseg.cli.verify import verify

__all__ = ["app"]

app = typer.Typer(
    name="edgeseg",
    help="Lightweight segmentation networks from a PyTorch checkpoint to an edge device, exactly and fast.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        import edgeseg

        typer.echo(f"edgeseg {edgeseg.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Lightweight segmentation networks from a PyTorch checkpoint to an edge device, exactly and fast."""


app.command("models")(models)
app.command("export", cls=NumbersCommand)(export)
app.command("inspect")(inspect)
app.command("predict")(predict)
app.command("verify")(verify)
app.command("sign")(sign)
app.command("eval")(evaluate)
app.add_typer(benchmark_app, name="benchmark")
app.command("doctor")(doctor)
app.command("gpu-check")(gpu_check)
