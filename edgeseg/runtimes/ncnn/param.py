"""ncnn's graph as text: a magic number, the counts of layers and blobs, then a layer a line.

A line is ``TYPE NAME BOTTOMS TOPS bottom... top... KEY=VALUE...``, where BOTTOMS and TOPS count the names of blobs that
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeseg.graph_metadata import layer_name

__all__ = ["Layer", "marked", "read_layers", "without_last_resize", "write_layers"]

_MAGIC = "7767517"
_RESIZE, _BILINEAR, _ALIGN_CORNERS = "0", "2", "6"


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        kind: Its type, such as ``Convolution``.
        name: Free, without blanks.
        bottoms: Blobs it reads.
        tops: Blobs it writes.
        values: ``KEY=VALUE`` each.
    """

    kind: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    values: tuple[str, ...] = ()

    def value(self, key: str) -> str | None:
        """Read a parameter as text; None where it has its default.

        Example:
            >>> Layer("Interp", "up", ("a",), ("b",), ("0=2", "6=1")).value("6")
            '1'
        """
        return next((value.partition("=")[2] for value in self.values if value.partition("=")[0] == key), None)


def read_layers(text: str) -> tuple[Layer, ...]:
    """Read the layers of a graph.

    Raises:
        ValueError: The text is no such graph; says at which line.
    """
    lines = text.splitlines()
    if len(lines) < 2 or lines[0].strip() != _MAGIC:
        raise ValueError(f"its first line is not {_MAGIC}")
    layers = tuple(_layer(number, line.split()) for number, line in enumerate(lines[2:], 3) if line.strip())
    if lines[1].split()[:1] != [str(len(layers))]:
        raise ValueError(f"its second line counts other layers than the {len(layers)} there are")
    return layers


def _layer(number: int, words: Sequence[str]) -> Layer:
    try:
        kind, name, bottoms, tops = words[0], words[1], int(words[2]), int(words[3])
    except (IndexError, ValueError) as error:
        raise ValueError(f"line {number} is no layer") from error
    end = 4 + bottoms + tops
    if len(words) < end:
        raise ValueError(f"line {number} names fewer blobs than it counts")
    return Layer(kind, name, tuple(words[4 : 4 + bottoms]), tuple(words[4 + bottoms : end]), tuple(words[end:]))


def write_layers(layers: Sequence[Layer]) -> str:
    """Write layers as a graph."""
    blobs = sum(len(layer.tops) for layer in layers)
    lines = [_MAGIC, f"{len(layers)} {blobs}"]
    for layer in layers:
        counts = (str(len(layer.bottoms)), str(len(layer.tops)))
        lines.append(" ".join((layer.kind, layer.name, *counts, *layer.bottoms, *layer.tops, *layer.values)))
    return "\n".join(lines) + "\n"


def without_last_resize(layers: Sequence[Layer], output: str, *, align_corners: bool) -> tuple[Layer, ...] | None:
    """Take out the bilinear resize that a graph ends in: the exact postprocessing does it.

    Args:
        layers: Of the graph.
        output: Blob that the graph ends in.
        align_corners: Which the resize must have.

    Returns:
        The layers, of which what was resized has the name `output`; None where the graph does not end so.
    """
    last = next((layer for layer in layers if output in layer.tops), None)
    if last is None or last.kind != "Interp" or last.value(_RESIZE) != _BILINEAR or len(last.bottoms) != 1:
        return None
    if (last.value(_ALIGN_CORNERS) or "0") != str(int(align_corners)):
        return None
    names = {last.bottoms[0]: output}
    return tuple(
        replace(
            layer,
            bottoms=tuple(names.get(blob, blob) for blob in layer.bottoms),
            tops=tuple(names.get(blob, blob) for blob in layer.tops),
        )
        for layer in layers
        if layer is not last
    )


def marked(layers: Sequence[Layer], contract: str) -> tuple[Layer, ...]:
    """Name the input layer after a manifest's contract, so that the graph belongs to no other manifest."""
    name = layer_name(contract)
    return tuple(replace(layer, name=name) if layer.kind == "Input" else layer for layer in layers)
