"""Rewrites of the ONNX graph, one file per idea, under one contract (`edgeseg.graph.passes._base`).

`edgeseg.export.passes` lists them, with those that are for the kernels of one engine.
"""

from __future__ import annotations

from edgeseg.graph.passes._base import GraphPass, Kind, Pass, PassReport, PassResult, Score, run_passes
from edgeseg.graph.passes.activations import OrderGelu
from edgeseg.graph.passes.attention import ProjectValues
from edgeseg.graph.passes.border import ConvolveBroadcast
from edgeseg.graph.passes.branches import SumBranches
from edgeseg.graph.passes.cleanup import MergeDuplicates, RemoveUnused, StripNotes
from edgeseg.graph.passes.compose import ComposeConvs, ShrinkFirst
from edgeseg.graph.passes.labels import AppendLabels
from edgeseg.graph.passes.leftovers import DropRepeatedRelu
from edgeseg.graph.passes.push import PushLinear
from edgeseg.graph.passes.pyramids import NestPools
from edgeseg.graph.passes.resize import SimplifyResizes
from edgeseg.graph.passes.shuffles import AbsorbShuffles
from edgeseg.graph.passes.tiny import FlushTiny

__all__ = [
    "AbsorbShuffles",
    "AppendLabels",
    "ComposeConvs",
    "ConvolveBroadcast",
    "DropRepeatedRelu",
    "FlushTiny",
    "GraphPass",
    "Kind",
    "MergeDuplicates",
    "NestPools",
    "OrderGelu",
    "Pass",
    "PassReport",
    "PassResult",
    "ProjectValues",
    "PushLinear",
    "RemoveUnused",
    "Score",
    "ShrinkFirst",
    "SimplifyResizes",
    "StripNotes",
    "SumBranches",
    "run_passes",
]
