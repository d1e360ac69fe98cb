"""ncnn's graph as text: read, written, peeled and marked."""

from __future__ import annotations

import dataclasses

import pytest

from edgeseg.runtimes.ncnn.param import Layer, marked, read_layers, without_last_resize, write_layers

GRAPH = """7767517
5 6
Input                    in0                      0 1 in0
Convolution              conv_0                   1 1 in0 1 0=4 1=3
Split                    split_0                  1 2 1 2 3
Interp                   upsample_1               1 1 2 out0 0=2 3=32 4=48 6=1
ReLU                     relu_2                   1 1 3 4
"""


def test_a_graph_reads_as_it_was_written() -> None:
    layers = read_layers(GRAPH)
    assert [layer.kind for layer in layers] == ["Input", "Convolution", "Split", "Interp", "ReLU"]
    assert layers[2] == Layer("Split", "split_0", ("1",), ("2", "3"))
    assert layers[3].values == ("0=2", "3=32", "4=48", "6=1")
    assert read_layers(write_layers(layers)) == layers
    assert write_layers(layers).splitlines()[1] == "5 6"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "its first line is not 7767517"),
        ("7767517\n1 1\nReLU a 1\n", "line 3 is no layer"),
        ("7767517\n1 1\nReLU a 1 1 in0\n", "line 3 names fewer blobs than it counts"),
        ("7767517\n2 1\nInput in0 0 1 in0\n", "its second line counts other layers than the 1 there are"),
    ],
)
def test_what_is_no_graph_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_layers(text)


def test_the_last_resize_comes_off_where_the_postprocessing_does_the_same() -> None:
    layers = read_layers(GRAPH)
    peeled = without_last_resize(layers, "out0", align_corners=True)
    assert peeled is not None
    assert [layer.kind for layer in peeled] == ["Input", "Convolution", "Split", "ReLU"]
    assert peeled[2].tops == ("out0", "3")
    assert without_last_resize(layers, "out0", align_corners=False) is None


@pytest.mark.parametrize("change", [{"kind": "Pooling"}, {"values": ("0=1", "6=1")}, {"bottoms": ("2", "in0")}])
def test_no_other_layer_comes_off(change: dict[str, object]) -> None:
    layers = list(read_layers(GRAPH))
    layers[3] = dataclasses.replace(layers[3], **change)  # type: ignore[arg-type]
    assert without_last_resize(layers, "out0", align_corners=True) is None


def test_a_mark_is_the_name_of_the_input_alone() -> None:
    layers = read_layers(GRAPH)
    changed = marked(layers, "contract")
    assert changed[1:] == layers[1:]
    assert changed[0].name != marked(layers, "another")[0].name
    assert changed[0].tops == ("in0",)
