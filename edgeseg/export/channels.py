"""How many channels a network takes, found by running it; pictures have 3, and of 1 the graph makes grey."""

from __future__ import annotations

from dataclasses import replace

from edgeseg.errors import UsageError
from edgeseg.export.trial import Trial
from edgeseg.models import model_spec
from edgeseg.models.source import NetworkSource
from edgeseg.specs import GREY, InputSpec, Size

__all__ = ["settle_channels"]

_GREY = "the network takes 1 channel, so the graph makes every picture grey ({} R + {} G + {} B)".format(*GREY)


def settle_channels(
    source: NetworkSource, size: Size, channels: int | None = None, *, looks: bool = False
) -> NetworkSource:
    """Give a network's conventions the number of channels that it takes.

    Args:
        source: The network. Where the user gave a mean and std, their count must fit; one number counts for every
            channel. Where none was given and the network does not take 3 channels, pixels are divided by 255.
        size: Height x width of its input.
        channels: What the user said.
        looks: Take what was found, and note what an export needs, instead of asking; for `edgeseg inspect`.

    Returns:
        The same network, its mean, std and padding of as many numbers, and a note where pictures become grey.

    Raises:
        UsageError: The user's words contradict one another or a registered network, or the network takes neither 1 nor
            3 channels and the user did not say how many.

    Example:
        >>> from torch import nn
        >>> from edgeseg.models.source import resolve_network
        >>> settle_channels(resolve_network(nn.Conv2d(1, 2, 1)), (16, 16)).spec.input.channels
        1
    """
    given = source.spec.input
    if source.registered:
        takes = _registered_channels(source, channels)
        return source if given.channels == takes else source.but(input=given.spread(takes))
    if channels is None and source.input_chosen and given.channels > 1:
        channels = given.channels
    counts = _found(source, size) if channels is None else [channels]
    count, asked = counts[-1], channels is None and counts not in ([1], [3])
    if asked and not (looks and len(counts) == 1):
        raise UsageError(_question(source, counts))
    spec = given.spread(count) if source.input_chosen else given if count == 3 else InputSpec.plain(count)
    resize = replace(source.spec.resize, pad_value=source.spec.resize.padding(spec.image_channels))
    settled = replace(source, spec=source.spec.but(input=spec, resize=resize))
    question = (_question(source, counts),) if asked else ()
    return replace(settled, notes=settled.notes + question + _notes(source, spec))


def _registered_channels(source: NetworkSource, channels: int | None) -> int:
    takes = model_spec(source.origin).input.channels
    if channels not in (None, takes):
        raise UsageError(
            f"the registered network '{source.origin}' takes {takes} channels, and --channels is {channels}; leave it "
            "out, or export a module or factory of your own"
        )
    return takes


def _found(source: NetworkSource, size: Size) -> list[int]:
    """Counts that an unknown network takes; 3 where it takes that, or none that were tried, which is told later."""
    trial = Trial(source.module)
    return [3] if trial.runs(size) else trial.counts(size) or [3]


def _question(source: NetworkSource, counts: list[int]) -> str:
    several = " or ".join(map(str, counts))
    return (
        f"{source.origin} takes {several} channels and not 3, as pictures have; say --channels {counts[-1]} "
        f"(channels={counts[-1]} in Python), with --mean and --std where its input is not pixels / 255, and give it "
        "arrays (height, width, channels), TIFF or .npy files"
    )


def _notes(source: NetworkSource, spec: InputSpec) -> tuple[str, ...]:
    """What the user must see of a network that does not take colour."""
    grey = (_GREY,) if spec.channels == 1 else ()
    if source.input_chosen or spec.channels == 3:
        return grey
    return (*grey, "no mean and std were given: pixels are divided by 255; say otherwise with --mean and --std")
