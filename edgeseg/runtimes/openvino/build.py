"""Writing OpenVINO's files of a bundle at export."""

from __future__ import annotations

from pathlib import Path

from edgeseg._optional import require
from edgeseg.errors import ExportError
from edgeseg.files import storage_errors
from edgeseg.runtimes.engine import BuildRequest
from edgeseg.runtimes.openvino import OPENVINO_MODEL
from edgeseg.runtimes.openvino.session import cause

__all__ = ["build", "convert"]


def build(request: BuildRequest) -> None:
    """Convert the graph into ``openvino/model.xml``.

    Raises:
        EdgesegError: As `convert`.
    """
    convert(request.graph, request.folder / OPENVINO_MODEL)


def convert(onnx_path: Path, out_xml: Path) -> None:
    """Convert an ONNX graph into OpenVINO's form with its weights as they are.

    (OpenVINO's own default would round fp32 weights to fp16.)

    Args:
        onnx_path: The graph.
        out_xml: Where to write; the weights lie beside it as ``.bin``.

    Raises:
        TargetUnavailableError: openvino is not installed.
        ExportError: OpenVINO refuses the graph; quotes its words.
        StorageError: Writing failed.
    """
    ov = require("openvino", extra="openvino", why="the openvino target")
    with storage_errors(out_xml):
        try:
            model = ov.convert_model(str(onnx_path))
        except Exception as error:  # openvino's frontends raise errors of their own
            raise ExportError(f"OpenVINO cannot convert '{onnx_path}': {cause(error)}") from error
        out_xml.parent.mkdir(parents=True, exist_ok=True)
        try:
            ov.save_model(model, str(out_xml), compress_to_fp16=False)
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot write '{out_xml}': {cause(error)}") from error
