"""What the exporter leaves behind goes, and a tidy graph stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeseg.graph.passes import MergeDuplicates, Pass, RemoveUnused, StripNotes, run_passes
from tests.export.graphs import parse

IMAGE = {"x": np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)}


def _plain() -> onnx.ModelProto:
    return parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { logits = Relu(x) }")


def test_remove_unused_drops_identities_and_dead_nodes() -> None:
    model = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { a = Identity(x) dead = Exp(x) logits = Relu(a) }")
    model, (report,) = run_passes(model, [RemoveUnused()], IMAGE)
    assert report.modified
    assert report.error == 0.0
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def test_merge_duplicates_computes_the_same_once() -> None:
    model = parse("g (float[1,3,4,6] x) => (float[1,3,4,6] logits) { a = Exp(x) b = Exp(x) logits = Add(a, b) }")
    model, (report,) = run_passes(model, [MergeDuplicates()], IMAGE)
    assert report.modified
    assert [node.op_type for node in model.graph.node] == ["Exp", "Add"]


@pytest.mark.parametrize("step", [RemoveUnused(), MergeDuplicates(), StripNotes()])
def test_tidying_passes_decline_a_tidy_graph(step: Pass) -> None:
    model, (report,) = run_passes(_plain(), [step], IMAGE)
    assert not report.modified
    assert model == _plain()


def test_strip_notes_removes_paths_of_the_export_machine() -> None:
    model = _plain()
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "stack", "somewhere/on/a/disk.py"
    model.graph.node[0].doc_string = "somewhere"
    stripped, (report,) = run_passes(model, [StripNotes()], IMAGE)
    assert report.modified
    assert b"somewhere" not in stripped.SerializeToString()


def test_a_constant_output_prints_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = parse("g (float[2] x) => (float[2] z, float[2] y) <float[2] y = {1, 1}> { z = Relu(x) }")
    MergeDuplicates()(model)
    assert caplog.records == []
