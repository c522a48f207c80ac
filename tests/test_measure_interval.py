"""Intervals: the fast bootstrap equals the plain one, and both say what they should."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from demur.measure import belief as bel
from demur.measure import calibration as cal
from demur.measure import weighted
from demur.measure.interval import Estimate, Weighted, across_seeds, estimate, estimate_weighted

RNG = np.random.default_rng(11)
N, TASKS = 300, 40
CODES = np.concatenate([np.arange(TASKS), RNG.integers(0, TASKS, N - TASKS)])
LEVELS = RNG.integers(0, 11, N) / 10
FINE = np.round(RNG.random(N), 4)  # hardly any ties: the path that visits rows
Y = (RNG.random(N) < 0.3 + 0.4 * LEVELS).astype(float)

Pair = tuple[Callable[..., float], Weighted]
MEASURES: dict[str, Pair] = {}
for _name, _q in (("levels", LEVELS), ("fine", FINE)):
    MEASURES |= {
        f"auroc {_name}": (cal.auroc, weighted.auroc_of(_q, Y, CODES, TASKS)),
        f"ece {_name}": (cal.ece, weighted.ece_of(_q, Y, CODES, TASKS)),
        f"brier {_name}": (cal.brier, weighted.mean_of((_q - Y) ** 2, CODES, TASKS)),
        f"skill {_name}": (cal.brier_skill, weighted.brier_skill_of(_q, Y, CODES, TASKS)),
        f"aurc {_name}": (
            lambda q, y: cal.risk_coverage(q, y).area,
            weighted.aurc_of(_q, Y, CODES, TASKS),
        ),
        f"coverage at risk {_name}": (
            lambda q, y: cal.coverage_at_risk(q, y, 0.4),
            weighted.coverage_at_risk_of(_q, Y, CODES, TASKS, 0.4),
        ),
        f"slope on doubt {_name}": (
            lambda q, y: bel.adoption_slope(q, np.round(np.sqrt(q), 1), y).uncertainty,
            weighted.slopes_of(1.0 - _q, np.round(np.sqrt(_q), 1), Y, CODES, TASKS)[0],
        ),
        f"slope on reliability {_name}": (
            lambda q, y: bel.adoption_slope(q, np.round(np.sqrt(q), 1), y).reliability,
            weighted.slopes_of(1.0 - _q, np.round(np.sqrt(_q), 1), Y, CODES, TASKS)[1],
        ),
        f"std {_name}": (
            lambda q, y: cal.confidence_std(q),
            weighted.std_of(_q, CODES, TASKS),
        ),
    }


@pytest.mark.parametrize("name", MEASURES)
def test_fast_and_plain_bootstrap_agree_draw_for_draw(name: str) -> None:
    plain, fast = MEASURES[name]
    q = LEVELS if name.endswith("levels") else FINE
    a = estimate(plain, [q, Y], CODES, np.random.default_rng(5), resamples=60)
    b = estimate_weighted({name: fast}, TASKS, np.random.default_rng(5), resamples=60)[name]
    assert (a.mean, a.low, a.high) == pytest.approx((b.mean, b.low, b.high), abs=1e-12)
    assert a.n == b.n == N and a.low < a.high
    biased = name.startswith(("ece", "coverage"))  # upward: noise adds gaps, and a choice is made
    assert biased or a.low < a.mean < a.high


@pytest.mark.parametrize("q", [LEVELS, FINE], ids=["levels", "fine"])
def test_auroc_of_repeated_rows_is_scikit_learns(q: np.ndarray) -> None:
    counts = RNG.multinomial(TASKS, np.full(TASKS, 1 / TASKS), size=8)
    fast = weighted.auroc_of(q, Y, CODES, TASKS).of(counts.astype(float))
    for row, value in zip(counts, fast, strict=True):
        repeat = row[CODES]
        assert value == pytest.approx(roc_auc_score(np.repeat(Y, repeat), np.repeat(q, repeat)))


def test_auroc_of_one_class_is_nan() -> None:
    one = weighted.auroc_of(LEVELS, np.ones(N), CODES, TASKS)
    assert math.isnan(one.of(np.ones((1, TASKS)))[0])
    e = estimate_weighted({"a": one}, TASKS, np.random.default_rng(0))["a"]
    assert e.to_json() == {"mean": None, "low": None, "high": None, "n": N}


def test_a_slope_is_undefined_where_its_predictor_does_not_vary() -> None:
    codes = np.arange(4)
    x, z = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.2, 0.8, 0.2, 0.2])
    y = np.array([0.0, 0.0, 0.0, 1.0])
    counts = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 2], [2, 0, 0, 0]])
    first, second = weighted.slopes_of(x, z, y, codes, 4)
    for row, a, b in zip(
        counts, first.of(counts.astype(float)), second.of(counts.astype(float)), strict=True
    ):
        pick = np.repeat(codes, row)
        plain = bel.adoption_slope(1.0 - x[pick], z[pick], y[pick])
        assert (a, b) == pytest.approx((plain.uncertainty, plain.reliability), nan_ok=True)
    aligned, other = weighted.slopes_of(x, 1.0 - x, y, codes, 4)
    assert all(math.isnan(m.of(np.ones((1, 4)))[0]) for m in (aligned, other))


def test_one_confidence_in_a_draw_has_no_spread() -> None:
    spread = weighted.std_of(np.array([0.0, 0.3]), np.array([0, 1]), 3)
    counts = np.array([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    found = spread.of(counts)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2:] == pytest.approx([0.15, math.nan], nan_ok=True)


def test_no_threshold_that_is_safe_is_a_coverage_of_zero() -> None:
    q, y, codes = np.array([0.9, 0.5]), np.array([0.0, 1.0]), np.array([0, 1])
    found = weighted.coverage_at_risk_of(q, y, codes, 3, 0.05)
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
    assert found.of(counts) == pytest.approx([0.0, 1.0, math.nan], nan_ok=True)
    area = weighted.aurc_of(q, y, codes, 3)
    assert area.of(counts) == pytest.approx([0.75, 0.0, math.nan], nan_ok=True)


def test_clustering_widens_the_interval_of_repeated_rows() -> None:
    rng = np.random.default_rng(7)
    values = np.repeat((rng.random(100) < 0.5).astype(float), 9)
    by_task = estimate(np.mean, [values], np.repeat(np.arange(100), 9), np.random.default_rng(0))
    by_row = estimate(np.mean, [values], np.arange(900), np.random.default_rng(0))
    assert (by_task.high - by_task.low) / (by_row.high - by_row.low) == pytest.approx(3, rel=0.2)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(300):
        rate = rng.beta(2, 2, 80)  # each task has its own rate; the mean is 0.5
        values = (rng.random((80, 5)) < rate[:, None]).astype(float).ravel()
        m = weighted.mean_of(values, np.repeat(np.arange(80), 5), 80)
        e = estimate_weighted({"m": m}, 80, rng, 200)["m"]
        hits += e.low <= 0.5 <= e.high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_same_generator_gives_the_same_interval_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m = {"a": MEASURES["auroc fine"][1]}
    first = estimate_weighted(m, TASKS, np.random.default_rng(1), 50)
    assert first == estimate_weighted(m, TASKS, np.random.default_rng(1), 50)
    assert first != estimate_weighted(m, TASKS, np.random.default_rng(2), 50)
    monkeypatch.setattr("demur.measure.interval._CELLS", 3 * TASKS)
    monkeypatch.setattr("demur.measure.weighted._CELLS", 2 * N)
    assert first == estimate_weighted(m, TASKS, np.random.default_rng(1), 50)


def test_clusters_of_unequal_size_and_any_name() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0])
    e = estimate(np.mean, [values], ["x", "x", "x", "y"], np.random.default_rng(0))
    assert (e.mean, e.low, e.high, e.n) == (0.75, 0.0, 1.0, 4)
    with pytest.raises(ValueError, match="as many rows"):
        estimate(np.mean, [values], ["x"], np.random.default_rng(0))


def test_one_cluster_has_no_interval() -> None:
    e = estimate(np.mean, [np.ones(5)], ["x"] * 5, np.random.default_rng(0))
    assert e.mean == 1.0 and math.isnan(e.low) and math.isnan(e.high)
    m = weighted.mean_of(np.ones(5), np.zeros(5, dtype=np.int64), 1)
    assert estimate_weighted({"m": m}, 1, np.random.default_rng(0))["m"].to_json() == {
        "mean": 1.0,
        "low": None,
        "high": None,
        "n": 5,
    }


def test_an_interval_needs_half_of_the_resamples() -> None:
    # one right reply among many wrong: most resamples of two tasks of three lack a class
    q, y = np.array([0.9, 0.1, 0.2]), np.array([1.0, 0.0, 0.0])
    e = estimate(cal.auroc, [q, y], [0, 1, 2], np.random.default_rng(0), 200)
    assert e.mean == 1.0 and e.low == 1.0  # about 2/3 are defined
    rare = estimate(
        lambda v: float(v.mean()) if len(set(v.tolist())) == 3 else math.nan,
        [np.array([1.0, 2.0, 3.0])],
        [0, 1, 2],
        np.random.default_rng(0),
    )
    assert rare.mean == 2.0 and math.isnan(rare.low)  # only 6 of 27 draws hold all three


def test_across_seeds_by_hand() -> None:
    seeds = [Estimate(m, m - 0.05, m + 0.1, 50) for m in (0.5, 0.6, 0.7)]
    e = across_seeds(seeds)
    half = 4.302652729696142 * 0.1 / math.sqrt(3)  # t at 2 degrees of freedom
    assert e.mean == pytest.approx(0.6) and e.n == 150 and e.per_seed == (0.5, 0.6, 0.7)
    assert e.low == pytest.approx(0.6 - math.hypot(half, 0.05))
    assert e.high == pytest.approx(0.6 + math.hypot(half, 0.1))
    bare = across_seeds([Estimate(m) for m in (0.5, 0.6, 0.7)])
    low, high = stats.t.interval(0.95, 2, loc=0.6, scale=stats.sem([0.5, 0.6, 0.7]))
    assert (bare.low, bare.high) == pytest.approx((low, high))


def test_seeds_that_agree_still_share_the_spread_of_the_tasks() -> None:
    e = across_seeds([Estimate(0.5, 0.4, 0.6, 10)] * 5)
    assert (e.low, e.high) == pytest.approx((0.4, 0.6))


def test_one_seed_undefined_seeds_and_none() -> None:
    one = across_seeds([Estimate(0.5, 0.4, 0.7, 10)])
    assert one == Estimate(0.5, 0.4, 0.7, 10, (0.5,))
    mixed = across_seeds([Estimate(0.5, 0.4, 0.7, 10), Estimate(math.nan, n=10)])
    assert mixed.mean == 0.5 and mixed.to_json()["per_seed"] == [0.5, None]
    assert across_seeds([Estimate(math.nan)]).to_json()["mean"] is None
    assert across_seeds([]).to_json() == {"mean": None, "low": None, "high": None, "n": 0}
    leaning = across_seeds([Estimate(0.1, 0.12, 0.2), Estimate(0.1, 0.12, 0.2)])
    assert leaning.low == pytest.approx(0.1) and leaning.high == pytest.approx(0.2)
