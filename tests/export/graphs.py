"""Small ONNX graphs for the tests, written as text."""

from __future__ import annotations

import onnx
from onnx import parser

__all__ = ["parse"]


def parse(body: str, *, opset: int = 18, check: bool = True) -> onnx.ModelProto:
    """A model from the text of its graph, checked unless told otherwise."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{body}')
    if check:
        onnx.checker.check_model(model)
    return model
