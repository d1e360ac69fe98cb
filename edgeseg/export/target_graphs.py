"""A network's graph as each target is given it: in the target's precision, in the form its kernels want."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from torch import nn

from edgeseg.export.job import ExportJob
from edgeseg.export.network_graph import exact_logits
from edgeseg.export.passes import engine_passes
from edgeseg.graph.passes import PassReport, run_passes
from edgeseg.graph.qdq import as_int8
from edgeseg.manifest import Manifest
from edgeseg.runtimes import engine

__all__ = ["TargetGraphs"]

_FP32_GRAPHS = ("fp32", "bf16")
"""Precisions whose graph is the fp32 one; bf16 is arithmetic that OpenVINO chooses when it opens it."""


def _of_numbers(precision: str) -> str:
    """The precision of the numbers in a graph."""
    return "fp32" if precision in _FP32_GRAPHS else precision


def _key(target: str, precision: str) -> tuple[str, str]:
    """What tells graphs apart: the file they lie in, or the target where they lie in none, and their numbers."""
    return engine(target).graph or target, _of_numbers(precision)


class TargetGraphs:
    """The graphs of one export, each made once, when it is first asked for.

    Args:
        job: The export.
        fp32: The network's graph in fp32.
        lowered: The same in the precision that was asked for; `fp32` itself where that is fp32 or bf16.
        score: Share of labels, 0..1, of a lowered graph that equal fp32 PyTorch's; what passes that round are held to.
        folded: The fp32 module that the graph was made of.
    """

    def __init__(
        self,
        job: ExportJob,
        fp32: onnx.ModelProto,
        lowered: onnx.ModelProto,
        score: Callable[[onnx.ModelProto], float] | None = None,
        *,
        folded: nn.Module,
    ) -> None:
        self.folded = folded
        self._job, self._fp32, self._lowered, self._score = job, fp32, lowered, score
        self._forms: dict[tuple[str, str], onnx.ModelProto] = {}
        self._reports: dict[tuple[str, str], tuple[PassReport, ...]] = {}

    def plain(self, precision: str) -> onnx.ModelProto:
        """The graph in a precision, in no engine's own form: ``model.onnx``."""
        return self._fp32 if precision in _FP32_GRAPHS else self._lowered

    def of(self, target: str, precision: str) -> onnx.ModelProto:
        """The graph in a precision as a target is given it; `plain` itself where the target wants no other."""
        key = _key(target, precision)
        if key not in self._forms:
            self._forms[key], self._reports[key] = self._formed(target, _of_numbers(precision))
        return self._forms[key]

    def reports(self, manifest: Manifest) -> tuple[PassReport, ...]:
        """One report per pass that wrote a graph of a manifest's targets for one engine."""
        keys = dict.fromkeys(_key(target, manifest.precision_of(target)) for target in manifest.targets)
        return tuple(report for key in keys for report in self._reports.get(key, ()))

    def reports_of(self, target: str, precision: str) -> tuple[PassReport, ...]:
        """One report per pass that wrote a target's graph in a precision, for it alone."""
        self.of(target, precision)
        return self._reports[_key(target, precision)]

    def _formed(self, target: str, precision: str) -> tuple[onnx.ModelProto, tuple[PassReport, ...]]:
        plain, record, config = self.plain(precision), engine(target), self._job.config
        if precision == "int8" and record.signed_int8:
            plain = as_int8(plain)
        passes = engine_passes(record, precision, rewrites=config.rewrites, skip=config.skip_passes)
        if not passes:
            return plain, ()
        feeds = {"image": self._job.noise}
        exact = None if precision == "int8" else exact_logits(self._job)
        formed, reports = run_passes(plain, passes, feeds, exact=exact, score=self._score)
        return (formed if any(report.modified for report in reports) else plain), tuple(reports)
