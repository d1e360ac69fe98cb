"""Passes that only tidy: what the exporter leaves behind, without touching a number."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassBase, Sequential, common

from edgeseg.graph.passes._base import Pass

__all__ = ["MergeDuplicates", "RemoveUnused", "StripNotes"]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnx-ir's warnings out of the user's terminal: a constant output is no reason to look at the graph."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _IrPass(Pass):
    """A chain of passes of onnx-ir."""

    kind = "exact"

    steps: Sequence[PassBase] = ()

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        with _quiet():
            result = Sequential(*self.steps)(ir.serde.deserialize_model(model))
        return ir.serde.serialize_model(result.model) if result.modified else None


class RemoveUnused(_IrPass):
    """Drop identities and nodes, initialisers and opset imports nothing uses."""

    steps = (common.IdentityEliminationPass(), common.RemoveUnusedNodesPass(), common.RemoveUnusedOpsetsPass())


class MergeDuplicates(_IrPass):
    """Merge equal initialisers, and nodes that compute the same from the same."""

    steps = (common.DeduplicateInitializersPass(), common.CommonSubexpressionEliminationPass())


class StripNotes(Pass):
    """Remove the exporter's notes (stack traces with paths of the export machine, names of torch nodes)."""

    kind = "exact"

    def rewrite(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        stripped = onnx.ModelProto()
        stripped.CopyFrom(model)
        graph = stripped.graph
        for holder in (
            stripped,
            graph,
            *graph.node,
            *graph.input,
            *graph.output,
            *graph.initializer,
            *graph.value_info,
        ):
            holder.ClearField("doc_string")
            holder.ClearField("metadata_props")
        del graph.value_info[:]
        return stripped if stripped.ByteSize() < model.ByteSize() else None
