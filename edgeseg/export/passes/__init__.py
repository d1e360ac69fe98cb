"""Rewrites of the ONNX graph, one file per idea, each of which proves itself (`edgeseg.export.passes._base`)."""

from edgeseg.export.passes._base import Pass, PassReport, PassResult, run_graph, run_passes
from edgeseg.export.passes.cleanup import MergeDuplicates, RemoveUnused, StripNotes
from edgeseg.export.passes.labels import AppendLabels

__all__ = [
    "AppendLabels",
    "MergeDuplicates",
    "Pass",
    "PassReport",
    "PassResult",
    "RemoveUnused",
    "StripNotes",
    "default_passes",
    "run_graph",
    "run_passes",
]


def default_passes() -> tuple[Pass, ...]:
    """The passes every export runs, in order."""
    return (RemoveUnused(), MergeDuplicates(), StripNotes())
