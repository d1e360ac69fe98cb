"""Rewrites of the ONNX graph, one file per idea, under one contract (`edgeseg.export.passes._base`).

`edgeseg.export.passes.registry` lists them, with those that are for the kernels of one engine.
"""

from __future__ import annotations

from edgeseg.export.passes._base import GraphPass, Kind, Pass, PassReport, PassResult, Score, run_passes
from edgeseg.export.passes.activations import OrderGelu
from edgeseg.export.passes.attention import ProjectValues
from edgeseg.export.passes.border import ConvolveBroadcast
from edgeseg.export.passes.branches import SumBranches
from edgeseg.export.passes.cleanup import MergeDuplicates, RemoveUnused, StripNotes
from edgeseg.export.passes.compose import ComposeConvs, ShrinkFirst
from edgeseg.export.passes.labels import AppendLabels
from edgeseg.export.passes.leftovers import DropRepeatedRelu
from edgeseg.export.passes.push import PushLinear
from edgeseg.export.passes.pyramids import NestPools
from edgeseg.export.passes.resize import SimplifyResizes
from edgeseg.export.passes.shuffles import AbsorbShuffles
from edgeseg.export.passes.tiny import FlushTiny

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
