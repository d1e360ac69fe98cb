"""Options of ``edgeseg export``; the text of each is what `ExportConfig` says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli._shared import console, table, target_names
from edgeseg.cli.label_options import label_option
from edgeseg.export.config import option_help

CALIB = "--calib-"
"""How the options on calibration pictures begin."""


def _option(name: str, *flags: str, ending: str = "", **more: Any) -> Any:
    """Make the option of a field of `ExportConfig`.

    Args:
        name: Of the field.
        flags: Where they are not the parameter's name.
        ending: Added to the help.
        more: Of `typer.Option`.
    """
    return typer.Option(*flags, help=option_help(name) + ending, **more)


def _list_passes(wanted: bool) -> None:
    """Print every pass on the graph: how it proves itself, the target whose graph it is for, and what it does."""
    if not wanted:
        return
    from edgeseg._optional import require

    require("onnx_ir", extra="export", why="export --passes")
    from edgeseg.export.passes import list_passes

    listed = table("pass", "kind", "target", "what it does")
    for entry in list_passes():
        listed.add_row(entry.name, entry.kind, entry.engine or "all", entry.summary)
    console().print(listed)
    raise typer.Exit


_NETWORK = (
    "Registry name, package.module:factory of your own, or the file of a TorchScript archive or exported program; not "
    "needed with --config."
)
NetworkName = Annotated[str | None, typer.Argument(help=_NETWORK)]
Config = Annotated[
    Path | None,
    typer.Option(help="mmsegmentation's config of the network: its .py file, or a JSON or YAML dump of it."),
]
TrustConfig = Annotated[
    bool, typer.Option("--trust-config", help="Run a .py config, which is code; without it, literals alone are read.")
]
Weights = Annotated[Path | None, typer.Option(help="Published or own checkpoint; without it the weights are random.")]
WeightsKey = Annotated[
    str | None,
    typer.Option(help="The weights to take, where the checkpoint holds several sets, such as state_dict_ema."),
]
Classes = Annotated[int | None, typer.Option(min=1, help="Output channels; default what the checkpoint holds.")]
Out = Annotated[Path, typer.Option(help="Folder the bundle is written into.")]
Name = Annotated[str | None, typer.Option(help="Name of the bundle; default the network's.")]

Targets = Annotated[
    list[str] | None, _option("targets", "--target", "-t", ending=f" Built in are {target_names(last=' and ')}.")
]
GraphSize = Annotated[str | None, _option("size")]
Channels = Annotated[int | None, _option("channels", min=1)]
Batch = Annotated[int, _option("batch", "--fixed-batch", min=1)]
Dynamic = Annotated[bool, _option("dynamic", "--dynamic")]
LabelSize = Annotated[str | None, _option("label_size")]
Output = Annotated[str, _option("output")]
Take = Annotated[str | None, _option("take")]
Threshold = Annotated[float | None, _option("threshold")]
Activation = Annotated[str | None, _option("activation")]
NoFuse = Annotated[bool, typer.Option("--no-fuse", help="Leave batch norms and branches to the exporter.")]
NoRewrites = Annotated[bool, typer.Option("--no-rewrites", help="Leave what the graph computes as it was exported.")]
SkipPasses = Annotated[list[str] | None, _option("skip_passes", "--skip-pass", ending=" May be given again.")]
Machine = Annotated[str, _option("machine", "--machine-profile")]
ParityImages = Annotated[Path | None, _option("parity_images", ending=" A file or a folder.")]
Sample = Annotated[Path | None, _option("sample")]
MinAgreement = Annotated[float | None, _option("min_agreement", min=0.0, max=1.0)]
MaxLogitError = Annotated[float | None, _option("max_logit_error", min=0.0)]

Precision = Annotated[str, _option("precision")]
Calib = Annotated[Path | None, _option("calib")]
CalibRecursive = Annotated[bool, _option("calib_recursive", "--calib-recursive")]
CalibLabels = Annotated[Path | None, label_option("labels", flags=CALIB, ending=" mIoU is then measured too.")]
CalibDataset = Annotated[
    tuple[str, Path] | None, label_option("dataset", flags=CALIB, metavar="NAME ROOT", show_default=False)
]
CalibIgnore = Annotated[int | None, label_option("ignore", flags=CALIB, min=0, max=65535)]
CalibPositiveLabel = Annotated[int | None, label_option("positive_label", flags=CALIB, min=0, max=65535)]
CalibReduceZeroLabel = Annotated[bool, label_option("reduce_zero_label", flags=CALIB)]
CalibLabelMap = Annotated[Path | None, label_option("label_map", flags=CALIB)]
CalibLabelSuffix = Annotated[str, label_option("label_suffix", flags=CALIB)]
MaxMiouDrop = Annotated[float | None, _option("max_miou_drop", min=0.0, max=1.0)]
Force = Annotated[bool, _option("force", "--force")]

Numbers = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS", help="On the 0..255 scale, one per channel in the network's order, or one for all channels."
    ),
]
Scale = Annotated[float | None, typer.Option(help="Factor after mean and std; they are on the 0..255 scale.")]
ChannelOrder = Annotated[str | None, typer.Option(help="rgb or bgr: the order the network was trained in.")]
Resize = Annotated[str | None, typer.Option(help="stretch, letterbox or none.")]
ResizeFilter = Annotated[str | None, typer.Option(help="linear, area, cubic, nearest or pillow_bilinear.")]
AlignCorners = Annotated[bool | None, typer.Option(help="Of the trailing resize.")]
Labels = Annotated[str | None, typer.Option(help="Label set: cityscapes, camvid, person, voc, generic.")]

ListPasses = Annotated[
    bool, typer.Option("--passes", callback=_list_passes, is_eager=True, help="List the passes on the graph.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell what each pass on the graph did.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
