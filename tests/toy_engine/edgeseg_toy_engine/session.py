"""A session on onnx's reference evaluator."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from edgeseg.errors import InputError
from edgeseg.runtimes import SessionBase, SessionInfo, TensorInfo

__all__ = ["ToySession"]


class ToySession(SessionBase):
    """A graph in onnx's reference evaluator; calls wait for one another.

    Args:
        file: The graph.
        verbose: Print every node as it runs.
    """

    def __init__(self, file: Path, *, verbose: bool) -> None:
        model = onnx.load(file)
        self._evaluator: ReferenceEvaluator | None = ReferenceEvaluator(model, verbose=10 if verbose else 0)
        self.inputs = tuple(map(_tensor, model.graph.input))
        self.outputs = tuple(map(_tensor, model.graph.output))
        self.info = SessionInfo("Toy", f"toy on onnx {metadata.version('onnx')}", "CPU", "fp32")

    def _run(self, image: NDArray[np.uint8], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        if self._evaluator is None:
            raise InputError("the session is closed; open the bundle again")
        values = self._evaluator.run(list(names), {self.inputs[0].name: image})
        return {name: np.array(value) for name, value in zip(names, values, strict=True)}

    def _free(self) -> None:
        self._evaluator = None


def _tensor(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    shape = tuple(int(dim.dim_value) or None for dim in kind.shape.dim)
    return TensorInfo(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
