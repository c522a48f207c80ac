"""Calibration measures against hand-computed values, scikit-learn and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from demur.measure import calibration as cal

Q = [0.95, 0.95, 0.75, 0.75, 0.75, 0.05, 1.0]
Y = [True, False, True, True, False, False, True]
pairs = st.lists(
    st.tuples(st.integers(0, 20).map(lambda k: k / 20), st.booleans()), min_size=1, max_size=60
)


def test_hand_values() -> None:
    assert cal.accuracy(Y) == pytest.approx(4 / 7)
    squares = [0.0025, 0.9025, 0.0625, 0.0625, 0.5625, 0.0025, 0.0]
    assert cal.brier(Q, Y) == pytest.approx(sum(squares) / 7)
    assert cal.brier_skill(Q, Y) == pytest.approx(1 - (sum(squares) / 7) / (12 / 49))
    # bins 9 (.95, .95, 1.0: 2 of 3), 7 (.75 x 3: 2 of 3), 0 (.05: 0 of 1)
    gaps = abs(2.9 - 2) + abs(2.25 - 2) + 0.05
    assert cal.ece(Q, Y) == pytest.approx(gaps / 7)
    assert cal.confidence_std(Q) == pytest.approx(np.std(Q))


def test_undefined_is_nan_and_never_zero() -> None:
    one_class = [cal.auroc([0.2, 0.9], [True, True]), cal.brier_skill([0.2, 0.9], [False, False])]
    empty = [
        cal.accuracy([]),
        cal.brier([], []),
        cal.brier_skill([], []),
        cal.ece([], []),
        cal.auroc([], []),
        cal.confidence_std([]),
        cal.risk_coverage([], []).area,
        cal.coverage_at_risk([], []),
        cal.brier_decomposition([], []).total,
    ]
    assert all(math.isnan(value) for value in one_class + empty)


@pytest.mark.parametrize("q", [[1.01], [-0.1], [math.nan], [math.inf]])
def test_a_confidence_that_is_none_is_refused(q: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        cal.brier(q, [True])


def test_shapes_and_outcomes_are_checked() -> None:
    with pytest.raises(ValueError, match="equally long"):
        cal.brier([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="true or false"):
        cal.ece([0.1], [math.nan])


@settings(deadline=None, max_examples=60)
@given(pairs)
def test_agrees_with_scikit_learn(data: list[tuple[float, bool]]) -> None:
    q, y = map(list, zip(*data, strict=True))
    assert cal.brier(q, y) == pytest.approx(brier_score_loss(y, q, pos_label=True))
    if len(set(y)) == 2:
        assert cal.auroc(q, y) == pytest.approx(roc_auc_score(y, q))


@settings(deadline=None, max_examples=60)
@given(pairs, st.sampled_from([None, 1, 3, 10]))
def test_the_brier_score_is_the_sum_of_its_parts(
    data: list[tuple[float, bool]], bins: int | None
) -> None:
    q, y = map(list, zip(*data, strict=True))
    parts = cal.brier_decomposition(q, y, bins)
    assert parts.total == pytest.approx(cal.brier(q, y), abs=1e-12)
    assert parts.uncertainty == pytest.approx(np.var(np.array(y, dtype=float)))
    if bins is None:
        assert parts.within == 0.0


def test_a_constant_confidence_resolves_nothing_though_its_ece_is_perfect() -> None:
    q, y = [0.7] * 10, [True] * 7 + [False] * 3
    assert cal.ece(q, y) == pytest.approx(0.0)
    assert cal.brier_decomposition(q, y).resolution == pytest.approx(0.0)
    assert cal.auroc(q, y) == 0.5
    assert cal.brier_skill(q, y) == pytest.approx(0.0)
    assert cal.confidence_std(q) == pytest.approx(0.0)


def test_bins_are_left_closed_with_one_in_the_last() -> None:
    q = [k / 10 for k in range(11)]
    assert cal.bin_index(np.array(q)).tolist() == [*range(10), 9]
    assert cal.bin_index(np.array([np.nextafter(0.3, 0), 0.3])).tolist() == [2, 3]


def test_reliability_bins_rebuild_the_ece() -> None:
    bins = cal.reliability_bins(Q, Y)
    assert [b["n"] for b in bins] == [1, 0, 0, 0, 0, 0, 0, 3, 0, 3]
    assert bins[1]["confidence"] is None and bins[1]["accuracy"] is None
    gaps = [
        b["n"] * abs(b["confidence"] - b["accuracy"])
        for b in bins
        if b["confidence"] is not None and b["accuracy"] is not None
    ]
    assert sum(gaps) / 7 == pytest.approx(cal.ece(Q, Y))


def test_risk_coverage_without_ties_is_the_mean_risk_over_ranks() -> None:
    rng = np.random.default_rng(3)
    q, y = rng.random(50), rng.random(50) < 0.6
    wrong = 1.0 - y[np.argsort(-q)]
    risks = [wrong[: i + 1].mean() for i in range(50)]
    curve = cal.risk_coverage(q, y)
    assert curve.risk.tolist() == pytest.approx(risks)
    assert curve.coverage.tolist() == pytest.approx([(i + 1) / 50 for i in range(50)])
    assert curve.area == pytest.approx(np.mean(risks))


def test_ties_in_confidence_enter_as_one_block_in_any_order() -> None:
    q, y = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, True, False, False])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        curve = cal.risk_coverage(q[order], y[order])
        assert curve.coverage.tolist() == [0.25, 1.0]
        assert curve.risk.tolist() == [0.0, 0.5]
        assert curve.area == pytest.approx(0.75 * 0.5)


def test_coverage_at_risk() -> None:
    q = np.linspace(1, 0, 100)
    y = np.ones(100, dtype=bool)
    y[[19, 50, 51, 52, 53, 54, 55]] = False
    # 1 wrong in the first 50 (2%), 2 in 51 (3.9%), 3 in 52 (5.8%)
    assert cal.coverage_at_risk(q, y) == pytest.approx(0.51)
    assert cal.coverage_at_risk([0.9, 0.1], [False, True]) == 0.0  # a true zero
    assert cal.coverage_at_risk([0.9, 0.1], [True, True]) == 1.0
