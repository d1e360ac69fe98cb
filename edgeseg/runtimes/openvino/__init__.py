"""The ``openvino`` target."""

from __future__ import annotations

__all__ = ["OPENVINO_MODEL"]

OPENVINO_MODEL = "openvino/model.xml"
"""File of a bundle with OpenVINO's graph; its weights lie beside it as ``.bin``."""
