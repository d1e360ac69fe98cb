"""``edgeseg inspect``: what a network returns for a picture, before it is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeseg.cli import export_options as option
from edgeseg.cli._shared import console, no_warnings, optional_size, results_alone_on_stdout, size_text, table
from edgeseg.cli.export_network import check_network, named_network
from edgeseg.specs import check_divisor
from edgeseg.text import one_line

if TYPE_CHECKING:
    from edgeseg.export.inspect import Inspection
    from edgeseg.models.source import NetworkSource

__all__ = ["inspect"]


def inspect(
    network: option.NetworkName = None,
    config: option.Config = None,
    trust_config: option.TrustConfig = False,
    weights: option.Weights = None,
    weights_key: option.WeightsKey = None,
    size: option.GraphSize = None,
    channels: option.Channels = None,
    classes: option.Classes = None,
    take: option.Take = None,
    threshold: option.Threshold = None,
) -> None:
    """Run a network on two pictures and print what it returns; what cannot be exported is one sentence."""
    from edgeseg._optional import require

    given = {"network": network, "config": config, "trust_config": trust_config, "weights": weights}
    check_network(given, "inspect")
    for package in ("torch", "onnx"):
        require(package, extra="export", why="inspect")
    with results_alone_on_stdout(), no_warnings():
        from edgeseg.export.channels import settle_channels
        from edgeseg.export.inspect import inspect_network

        source = named_network({**given, "weights_key": weights_key, "classes": classes})
        chosen = optional_size(size) or source.spec.input_size
        check_divisor(source.origin, chosen, source.spec.divisor)
        source.check_takes(chosen)
        source = settle_channels(source, chosen, channels, looks=True)
        seen = inspect_network(source, chosen, take, cut=threshold is not None)
    _print(source, chosen, seen)


def _print(source: NetworkSource, size: tuple[int, int], seen: Inspection) -> None:
    """Print an inspection."""
    from edgeseg.export.output_range import KINDS

    listed = table("what", "seen")
    listed.add_row("network", source.origin)
    listed.add_row("picture", size_text(size))
    listed.add_row("channels it takes", str(source.spec.input.channels))
    listed.add_row("logits", f"'{seen.choice.take}' of what it returns" if seen.choice.take else "a tensor alone")
    listed.add_row("channels", str(seen.channels))
    listed.add_row("size of the logits", size_text(seen.logit_size))
    listed.add_row("range", f"{seen.range.low:.4g} .. {seen.range.high:.4g}")
    listed.add_row("looks like", KINDS["logits" if source.registered else seen.range.kind])
    console().print(listed)
    for note in source.notes + seen.notes:
        console().print(one_line(note, 1000), soft_wrap=True)
