"""End a graph in labels: the exact tail for targets that resize and take the argmax themselves (GPUs)."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.passes._base import Pass
from edgeseg.specs import Size, TailSpec

__all__ = ["AppendLabels"]


class AppendLabels(Pass):
    """Add a second output ``labels`` (N, H, W): bilinear resize of ``logits``, argmax, cast.

    Up to 255 classes they are uint8; the cast to it is the last node and comes from float: the only form every TensorRT
    takes. Above, they are int32, since no engine returns uint16. The logits stay an
    output, so that labels of another size can be had exactly from the same run.

    Args:
        size: Height x width of the labels.
        tail: align_corners of the resize, and the threshold of a single logit.
    """

    def __init__(self, size: Size, tail: TailSpec) -> None:
        self.size, self.tail = size, tail

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
        source = self._resize(graph, (batch, classes, *self.size), (height, width))
        kind = self._choose(graph, source, classes)
        labels = helper.make_tensor_value_info("labels", kind, (batch, *self.size))
        graph.output.append(labels)
        return extended

    def _resize(self, graph: onnx.GraphProto, target: tuple[int, int, int, int], size: Size) -> str:
        if target[2:] == size:
            return "logits"
        graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), "labels_size"))
        mode = "align_corners" if self.tail.align_corners else "half_pixel"
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
        return "labels_logits"

    def _choose(self, graph: onnx.GraphProto, source: str, classes: int) -> int:
        if classes > 1:
            graph.node.append(
                helper.make_node("ArgMax", [source], ["labels_index"], name="labels_argmax", axis=1, keepdims=0)
            )
        else:
            threshold = np.array(self.tail.threshold, np.float32)
            graph.initializer.append(numpy_helper.from_array(threshold, "labels_threshold"))
            graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "labels_axis"))
            graph.node.append(helper.make_node("Squeeze", [source, "labels_axis"], ["labels_plane"]))
            graph.node.append(helper.make_node("Greater", ["labels_plane", "labels_threshold"], ["labels_index"]))
        if classes > 255:
            graph.node.append(helper.make_node("Cast", ["labels_index"], ["labels"], to=TensorProto.INT32))
            return TensorProto.INT32
        graph.node.append(helper.make_node("Cast", ["labels_index"], ["labels_float"], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Cast", ["labels_float"], ["labels"], to=TensorProto.UINT8))
        return TensorProto.UINT8
