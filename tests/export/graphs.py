"""Small ONNX graphs for the tests, written as text."""

from __future__ import annotations

import onnx
from onnx import parser

__all__ = ["parse"]


def parse(body: str, *, opset: int = 18) -> onnx.ModelProto:
    """A checked model from the text of its graph."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{body}')
    onnx.checker.check_model(model)
    return model
