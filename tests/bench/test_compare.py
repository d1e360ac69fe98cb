"""Verdicts on series whose truth is known, and what must not be compared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.bench.compare import compare_reports, compare_samples, mann_whitney, ratio_interval
from edgeseg.errors import RegressionError, UsageError
from tests.bench.samples import a_machine, a_report, latencies

SERIES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=30)


def test_mann_whitney_agrees_with_a_worked_example() -> None:
    # Ranks of a: 1, 2, 3.5, 6 and of b: 3.5, 5, 7, 8, so U_a = 12.5 - 10; one tie of two values.
    u, p = mann_whitney([1.0, 2.0, 3.0, 5.0], [3.0, 4.0, 6.0, 7.0])
    assert u == 2.5
    variance = 4 * 4 / 12 * (9 - (2**3 - 2) / (8 * 7))
    assert p == pytest.approx(math.erfc((abs(2.5 - 8) - 0.5) / math.sqrt(variance) / math.sqrt(2)), rel=1e-12)


@given(SERIES, SERIES)
@settings(deadline=None)
def test_mann_whitney_counts_pairs_and_is_symmetric(a: list[float], b: list[float]) -> None:
    u, p = mann_whitney(a, b)
    v, q = mann_whitney(b, a)
    assert u == sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    assert u + v == len(a) * len(b)
    assert p == pytest.approx(q, abs=1e-12)
    assert 0.0 <= p <= 1.0


def test_mann_whitney_rejects_as_often_as_it_says_under_the_null() -> None:
    random = np.random.default_rng(5)
    rejected = [mann_whitney(random.lognormal(size=30), random.lognormal(size=40))[1] < 0.05 for _ in range(2000)]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.02)


def test_equal_values_show_nothing() -> None:
    assert mann_whitney([2.0] * 9, [2.0] * 9)[1] == 1.0
    assert compare_samples([0.0] * 9, [0.0] * 9) == (1.0, 1.0, 1.0, 1.0, "no difference")


def test_the_ratio_interval_covers_the_true_ratio_and_repeats() -> None:
    random, covered = np.random.default_rng(7), 0
    for _ in range(100):
        low, high = ratio_interval(random.lognormal(size=60), 1.5 * random.lognormal(size=60))
        covered += low <= 1.5 <= high
    assert covered >= 85  # about 95 are expected
    a, b = latencies(10.0), latencies(11.0, seed=1)
    assert ratio_interval(a, b) == ratio_interval(a, b)


def test_blocks_widen_the_interval_of_series_whose_neighbours_are_alike() -> None:
    random = np.random.default_rng(3)
    alike = 10.0 + np.repeat(random.standard_normal(20), 10)
    mixed = random.permutation(alike)
    widths = [high - low for low, high in (ratio_interval(alike, alike), ratio_interval(mixed, mixed))]
    assert widths[0] > 1.3 * widths[1]


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "no difference"), (1.03, "no difference"), (1.10, "slower"), (0.90, "faster"), (2.0, "slower")],
)
def test_verdicts_on_clear_series(factor: float, verdict: str) -> None:
    ratio, low, high, _, found = compare_samples(latencies(10.0), latencies(10.0 * factor, seed=1))
    assert found == verdict
    assert low <= ratio <= high
    assert ratio == pytest.approx(factor, rel=0.02)


def test_the_threshold_decides_how_much_is_allowed() -> None:
    a, b = latencies(10.0), latencies(11.0, seed=1)
    assert compare_samples(a, b, threshold=0.05)[-1] == "slower"
    assert compare_samples(a, b, threshold=0.20)[-1] == "no difference"


def test_noise_beyond_the_threshold_is_unclear_and_no_regression() -> None:
    assert compare_samples([10.0, 11.0, 9.0], [12.0, 9.5, 13.0])[-1] == "unclear"
    assert compare_samples([0.0] * 3, [1.0, 1.0, 1.0])[0] == math.inf


def test_equal_truth_is_hardly_ever_called_slower() -> None:
    wrong = [
        compare_samples(latencies(10.0, seed=s, spread=0.2), latencies(10.0, seed=1000 + s, spread=0.2))[-1] == "slower"
        for s in range(100)
    ]
    assert sum(wrong) <= 5


def test_reports_are_matched_by_bundle_and_target() -> None:
    before = [a_report(target="ort"), a_report(target="torch")]
    after = [a_report(target="openvino"), a_report(target="ort")]
    found = compare_reports(before, after)
    assert {change.target for change in found.changes} == {"ort"}
    assert [change.stage for change in found.changes] == ["decode", "infer", "total"]
    assert found.only_before == ("tiny on torch",)
    assert found.only_after == ("tiny on openvino",)
    found.check()


def test_a_slower_total_is_a_regression_and_a_slower_stage_alone_is_not() -> None:
    before = [a_report({"postprocess": [1.0] * 50, "total": latencies(10.0)})]
    stage = compare_reports(before, [a_report({"postprocess": [1.5] * 50, "total": latencies(10.1)})])
    assert stage.changes[0].verdict == "slower"
    stage.check()
    total = compare_reports(before, [a_report({"postprocess": [1.0] * 50, "total": latencies(12.0)})])
    with pytest.raises(RegressionError, match=r"5 %.*tiny on ort 10\.\d+ -> 12\.\d+ ms") as caught:
        total.check()
    assert caught.value.exit_code == 10


def test_other_machines_are_refused_unless_allowed() -> None:
    before, after = [a_report()], [a_report(machine=a_machine(cpu="another CPU"))]
    with pytest.raises(UsageError, match=r"cpu is .*, then another CPU.*--any-machine"):
        compare_reports(before, after)
    found = compare_reports(before, after, any_machine=True)
    assert any("another CPU" in text for text in found.machine_differences)


def test_what_else_differs_is_noted() -> None:
    after = a_report(machine=a_machine(governor="odd"), options={"threads": 1}, edgeseg="9.9")
    notes = " ".join(compare_reports([a_report(machine=a_machine(governor="even"))], [after]).notes)
    assert "governor is even, then odd" in notes
    assert "edgeseg was 0.1.0, then 9.9" in notes
    assert "options was {'threads': 2}, then {'threads': 1}" in notes


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="in common: tiny on ort against other on ort"):
        compare_reports([a_report()], [a_report(name="other")])
    with pytest.raises(UsageError, match="twice"):
        compare_reports([a_report(), a_report()], [a_report()])
    with pytest.raises(UsageError, match="0 or more"):
        compare_reports([a_report()], [a_report()], threshold=-0.1)


def test_a_comparison_is_plain_json_even_over_a_median_of_zero() -> None:
    before, after = (
        a_report({"postprocess": [0.0] * 9, "total": [1.0] * 9}),
        a_report({"postprocess": [1.0] * 9, "total": [1.0] * 9}),
    )
    data = json.loads(json.dumps(compare_reports([before], [after]).to_json(), allow_nan=False))
    assert data["changes"][0]["ratio"] is None
    assert data["changes"][1]["verdict"] == "no difference"
