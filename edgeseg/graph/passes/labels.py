"""End a graph in labels: the exact postprocessing for targets that resize and take the argmax themselves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from edgeseg.graph.editor import GraphEditor
from edgeseg.graph.passes._base import GraphPass
from edgeseg.postprocess import interpolation_bands
from edgeseg.specs import PostprocessSpec, Size

__all__ = ["AppendLabels"]

_BAND = 32  # rows of labels that the form for CPUs makes at once


class AppendLabels(GraphPass):
    """Let a graph end in ``labels`` (N, H, W) instead of ``logits``: bilinear resize of these, argmax, cast.

    Up to 255 classes they are uint8; the cast to it is the last node and comes from float where the form is that for
    GPUs: the only one every TensorRT takes. Above, they are int32, since no engine returns uint16.

    Interpolation is linear along each axis, so it is two matrix products with constant matrices of two entries per
    output. For CPUs the rows are made in bands that stay in cache, each labelled at once: the full tensor of classes x
    height x width never exists (`benchmarks/postprocess.py` times it).

    Args:
        size: Height x width of the labels.
        postprocess: align_corners of the resize, and the threshold of a single logit.
        form: ``resize`` for GPUs, ``bands`` for CPUs.
    """

    kind = "exact"

    def __init__(
        self, size: Size, postprocess: PostprocessSpec, *, form: Literal["resize", "bands"] = "resize"
    ) -> None:
        self.size, self.postprocess, self.form = size, postprocess, form

    def requires(self, model: onnx.ModelProto) -> str:
        outputs = {value.name: value for value in ir.serde.deserialize_model(model).graph.outputs}
        if "labels" in outputs:
            return "the graph already ends in labels"
        if "logits" not in outputs:
            return "the graph has no output 'logits'"
        shape = outputs["logits"].shape
        if shape is None or len(shape) != 4 or not all(isinstance(dim, int) and dim for dim in shape):
            return "the logits have no fixed size"
        return ""

    def apply(self, editor: GraphEditor) -> None:
        _free_the_name(editor)
        logits = next(value for value in editor.graph.outputs if value.name == "logits")
        batch, classes, height, width = editor.shape(logits) or (0, 0, 0, 0)
        ending = _Ending(editor, classes, self.postprocess.threshold, through_float=self.form == "resize")
        given = logits
        if logits.dtype == ir.DataType.FLOAT16:  # resized in half, logits that are close would tie
            logits = ending.add("Cast", [logits], "logits_float", name="logits_float", to=int(ir.DataType.FLOAT))
        if (height, width) == self.size:
            labels = ending.choose(logits, "labels")
        elif self.form == "resize":
            labels = ending.choose(self._resized(ending, logits, (batch, classes, *self.size)), "labels")
        else:
            labels = self._in_bands(ending, logits, (height, width))
        labels.name, labels.shape, labels.dtype = "labels", ir.Shape((batch, *self.size)), ending.kind
        editor.graph.outputs[editor.graph.outputs.index(given)] = labels
        editor.changes += 1

    def _resized(self, ending: _Ending, logits: ir.Value, target: tuple[int, int, int, int]) -> ir.Value:
        mode = "align_corners" if self.postprocess.align_corners else "half_pixel"
        sizes = ending.constant("labels_size", np.array(target, np.int64))
        return ending.add(
            "Resize",
            [logits, None, None, sizes],
            "labels_logits",
            name="labels_resize",
            coordinate_transformation_mode=mode,
            mode="linear",
        )

    def _in_bands(self, ending: _Ending, logits: ir.Value, size: Size) -> ir.Value:
        align = self.postprocess.align_corners
        ((_, inputs, across),) = interpolation_bands(size[1], self.size[1], align, self.size[1])
        matrix = ending.constant("labels_across", _all_inputs(across, inputs, size[1]))
        wide = ending.add("MatMul", [logits, matrix], "labels_wide")
        axis = ending.constant("labels_rows", np.array([2], np.int64))
        bands = [
            _band(ending, f"labels_{index}", wide, axis, rows, down)
            for index, (_, rows, down) in enumerate(interpolation_bands(size[0], self.size[0], align, _BAND))
        ]
        return ending.add("Concat", bands, "labels", name="labels_concat", axis=1)


def _free_the_name(editor: GraphEditor) -> None:
    """Give an inner value of the name ``labels`` another one."""
    for value in (out for node in editor.nodes() for out in node.outputs if out.name == "labels"):
        value.name = editor.fresh_name("labels_inner")


def _band(
    ending: _Ending, name: str, wide: ir.Value, axis: ir.Value, inputs: slice, down: NDArray[np.float32]
) -> ir.Value:
    """Add the labels of a band of rows."""
    ends = [
        ending.constant(f"{name}_{end}", np.array([row], np.int64))
        for end, row in (("first", inputs.start), ("last", inputs.stop))
    ]
    matrix = ending.constant(f"{name}_down", np.ascontiguousarray(down.T))
    rows = ending.add("Slice", [wide, *ends, axis], f"{name}_in")
    return ending.choose(ending.add("MatMul", [matrix, rows], f"{name}_out"), name)


class _Ending:
    """Nodes behind the logits.

    Args:
        editor: Of the graph.
        classes: Channels of the logits.
        threshold: Of a single logit.
        through_float: Let labels be floats before they are uint8.
    """

    def __init__(self, editor: GraphEditor, classes: int, threshold: float, *, through_float: bool) -> None:
        self._editor, self._classes, self._through_float = editor, classes, through_float
        self.kind = ir.DataType.UINT8 if classes <= 255 else ir.DataType.INT32
        if classes == 1:
            self._threshold = self.constant("labels_threshold", np.array(threshold, np.float32))
            self._axis = self.constant("labels_axis", np.array([1], np.int64))

    def choose(self, source: ir.Value, made: str) -> ir.Value:
        """Add the labels of resized logits."""
        if self._classes > 1:
            index = self.add("ArgMax", [source], f"{made}_index", name=f"{made}_index", axis=1, keepdims=0)
        else:
            plane = self.add("Squeeze", [source, self._axis], f"{made}_plane", name=f"{made}_plane")
            index = self.add("Greater", [plane, self._threshold], f"{made}_index", name=f"{made}_index")
        if self._through_float and self.kind == ir.DataType.UINT8:
            index = self.add("Cast", [index], f"{made}_float", name=f"{made}_float", to=int(ir.DataType.FLOAT))
        return self.add("Cast", [index], made, name=made, to=int(self.kind))

    def add(
        self, kind: str, inputs: list[ir.Value] | list[ir.Value | None], output: str, *, name: str = "", **given: Any
    ) -> ir.Value:
        """Add a node at the end of the graph and return its output."""
        value = ir.Value(name=self._editor.fresh_name(output))
        self._editor.graph.append(ir.node(kind, inputs, given, outputs=[value], name=name))
        return value

    def constant(self, name: str, values: NDArray[Any]) -> ir.Value:
        """Add an initialiser."""
        return self._editor.add_initialiser(values, name)


def _all_inputs(matrix: NDArray[np.float32], inputs: slice, n: int) -> NDArray[np.float32]:
    """Widen the matrix by rows of zeros for the inputs it leaves out."""
    full = np.zeros((n, matrix.shape[1]), np.float32)
    full[inputs] = matrix
    return full
