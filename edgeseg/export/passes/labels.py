"""End a graph in labels: the exact postprocessing for targets that resize and take the argmax themselves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.passes._base import Pass
from edgeseg.postprocess import interpolation_bands
from edgeseg.specs import PostprocessSpec, Size

__all__ = ["AppendLabels"]

_BAND = 32  # rows of labels that the form for CPUs makes at once


class AppendLabels(Pass):
    """Add an output ``labels`` (N, H, W): bilinear resize of ``logits``, argmax, cast.

    Up to 255 classes they are uint8; the cast to it is the last node and comes from float where the form is that for
    GPUs: the only one every TensorRT takes. Above, they are int32, since no engine returns uint16.

    Interpolation is linear along each axis, so it is two matrix products with constant matrices of two entries per
    output. For CPUs the rows are made in bands that stay in cache, each labelled at once: the full tensor of classes x
    height x width never exists (`benchmarks/postprocess.py` times it).

    Args:
        size: Height x width of the labels.
        postprocess: align_corners of the resize, and the threshold of a single logit.
        form: ``resize`` for GPUs, ``bands`` for CPUs.
        keep_logits: The logits stay an output, so that labels of another size can be had exactly from the same run.
    """

    kind = "exact"

    def __init__(
        self,
        size: Size,
        postprocess: PostprocessSpec,
        *,
        form: Literal["resize", "bands"] = "resize",
        keep_logits: bool = True,
    ) -> None:
        self.size, self.postprocess, self.form, self.keep_logits = size, postprocess, form, keep_logits

    def requires(self, model: onnx.ModelProto) -> str:
        outputs = {output.name: output for output in model.graph.output}
        if "logits" not in outputs:
            return "the graph has no output 'logits'"
        if "labels" in outputs:
            return "the graph already ends in labels"
        shape = outputs["logits"].type.tensor_type.shape.dim
        if len(shape) != 4 or not all(dim.dim_value for dim in shape):
            return "the logits have no fixed size"
        return ""

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        extended = onnx.ModelProto()
        extended.CopyFrom(model)
        graph = extended.graph
        logits = next(output for output in graph.output if output.name == "logits")
        batch, classes, height, width = (dim.dim_value for dim in logits.type.tensor_type.shape.dim)
        choose = _Choice(graph, classes, self.postprocess.threshold, through_float=self.form == "resize")
        if (height, width) == self.size:
            choose("logits", "labels")
        elif self.form == "resize":
            self._resize(graph, (batch, classes, *self.size))
            choose("labels_logits", "labels")
        else:
            self._bands(graph, (height, width), choose)
        if not self.keep_logits:
            graph.output.remove(logits)
        graph.output.append(helper.make_tensor_value_info("labels", choose.kind, (batch, *self.size)))
        return extended

    def _resize(self, graph: onnx.GraphProto, target: tuple[int, int, int, int]) -> None:
        _constant(graph, "labels_size", np.array(target, np.int64))
        mode = "align_corners" if self.postprocess.align_corners else "half_pixel"
        graph.node.append(
            helper.make_node(
                "Resize",
                ["logits", "", "", "labels_size"],
                ["labels_logits"],
                name="labels_resize",
                mode="linear",
                coordinate_transformation_mode=mode,
            )
        )

    def _bands(self, graph: onnx.GraphProto, logits: Size, choose: _Choice) -> None:
        align = self.postprocess.align_corners
        ((_, inputs, across),) = interpolation_bands(logits[1], self.size[1], align, self.size[1])
        _constant(graph, "labels_across", _all_inputs(across, inputs, logits[1]))
        graph.node.append(helper.make_node("MatMul", ["logits", "labels_across"], ["labels_wide"]))
        _constant(graph, "labels_rows", np.array([2], np.int64))
        bands = interpolation_bands(logits[0], self.size[0], align, _BAND)
        for index, (_, rows, down) in enumerate(bands):
            self._band(graph, f"labels_{index}", rows, down, choose)
        made = [f"labels_{index}" for index in range(len(bands))]
        graph.node.append(helper.make_node("Concat", made, ["labels"], name="labels_concat", axis=1))

    def _band(
        self, graph: onnx.GraphProto, name: str, inputs: slice, down: NDArray[np.float32], choose: _Choice
    ) -> None:
        for end, row in (("first", inputs.start), ("last", inputs.stop)):
            _constant(graph, f"{name}_{end}", np.array([row], np.int64))
        _constant(graph, f"{name}_down", np.ascontiguousarray(down.T))
        rows = ["labels_wide", f"{name}_first", f"{name}_last", "labels_rows"]
        graph.node.append(helper.make_node("Slice", rows, [f"{name}_in"]))
        graph.node.append(helper.make_node("MatMul", [f"{name}_down", f"{name}_in"], [f"{name}_out"]))
        choose(f"{name}_out", name)


class _Choice:
    """Nodes from resized logits to labels."""

    def __init__(self, graph: onnx.GraphProto, classes: int, threshold: float, *, through_float: bool) -> None:
        self._graph, self._classes, self._through_float = graph, classes, through_float
        self.kind = TensorProto.UINT8 if classes <= 255 else TensorProto.INT32
        if classes == 1:
            _constant(graph, "labels_threshold", np.array(threshold, np.float32))
            _constant(graph, "labels_axis", np.array([1], np.int64))

    def __call__(self, source: str, made: str) -> None:
        index = f"{made}_index"
        if self._classes > 1:
            self._add("ArgMax", [source], index, axis=1, keepdims=0)
        else:
            self._add("Squeeze", [source, "labels_axis"], f"{made}_plane")
            self._add("Greater", [f"{made}_plane", "labels_threshold"], index)
        if self._through_float and self.kind == TensorProto.UINT8:
            self._add("Cast", [index], f"{made}_float", to=TensorProto.FLOAT)
            index = f"{made}_float"
        self._add("Cast", [index], made, to=self.kind)

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def _all_inputs(matrix: NDArray[np.float32], inputs: slice, n: int) -> NDArray[np.float32]:
    """The matrix with rows of zeros for the inputs it leaves out."""
    full = np.zeros((n, matrix.shape[1]), np.float32)
    full[inputs] = matrix
    return full


def _constant(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> None:
    graph.initializer.append(numpy_helper.from_array(values, name))
