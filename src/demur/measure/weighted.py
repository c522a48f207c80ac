"""The measures as functions of how often each task counts, for bootstraps that stay fast.

Each builder takes the rows of one measure: their values, and ``codes`` (n,), the task of each row
as a number below ``tasks``. It sums them by task once. A resample of tasks is then a row of counts,
and the measure of B resamples is one product (B, tasks) @ (tasks, sums), so the cost of a resample
does not grow with the number of rows in a task. With all counts 1 each measure equals its plain
form in :mod:`demur.measure.calibration` or :mod:`demur.measure.dissent`, which tests hold it to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.measure.calibration import BINS, bin_index
from demur.measure.interval import Weighted

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
_FEW_LEVELS = 64  # up to here a table of tasks x confidence levels is cheaper than visiting rows
_CELLS = 4_000_000
_FLAT = 1e-12  # a variance below this is rounding
_ALIGNED = 1e-10  # two predictors with 1 - correlation^2 below this are one
_MANY_ROWS = 5_000  # from here on resamples see confidences in steps
_STEPS = 256


def _by_task(columns: list[FloatArray], codes: IntArray, tasks: int) -> FloatArray:
    """Sums of each column by task: (tasks, columns)."""
    sums = [np.bincount(codes, weights=column, minlength=tasks) for column in columns]
    return np.stack(sums, axis=1)


def _from_sums(
    columns: list[FloatArray],
    codes: IntArray,
    tasks: int,
    finish: Callable[[FloatArray], FloatArray],
) -> Weighted:
    """A measure ``finish`` of the weighted sums (B, columns)."""
    sums = _by_task(columns, codes, tasks)

    def of(counts: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return finish(counts @ sums)

    return Weighted(of, codes.size)


def mean_of(values: FloatArray, codes: IntArray, tasks: int) -> Weighted:
    """The mean of ``values`` (n,): sum of w v over sum of w.

    >>> m = mean_of(np.array([1.0, 0.0, 0.0]), np.array([0, 0, 1]), 2)
    >>> m.of(np.array([[1.0, 1.0], [2.0, 0.0]])).round(4).tolist()
    [0.3333, 0.5]
    """
    return _from_sums(
        [values.astype(np.float64), np.ones(codes.size)], codes, tasks, lambda s: s[:, 0] / s[:, 1]
    )


def combine(
    a: Weighted, b: Weighted, how: Callable[[FloatArray, FloatArray], FloatArray]
) -> Weighted:
    """``how`` of two measures on the same draws; ``n`` is their sum, or 0 if either is empty."""
    return Weighted(lambda w: how(a.of(w), b.of(w)), a.n + b.n if a.n and b.n else 0)


def std_of(q: FloatArray, codes: IntArray, tasks: int) -> Weighted:
    """Standard deviation of the confidence, as :func:`demur.measure.calibration.confidence_std`."""
    middle = q - (q.mean() if q.size else 0.0)  # shifting first keeps most digits

    def finish(s: FloatArray) -> FloatArray:
        variance = s[:, 1] / s[:, 2] - (s[:, 0] / s[:, 2]) ** 2
        return np.asarray(np.sqrt(np.where(variance < _FLAT, 0.0, variance)), dtype=np.float64)

    return _from_sums([middle, middle**2, np.ones(codes.size)], codes, tasks, finish)


def brier_skill_of(q: FloatArray, y: FloatArray, codes: IntArray, tasks: int) -> Weighted:
    """Brier skill, as in :mod:`demur.measure.calibration`; the base rate is redrawn too."""

    def finish(s: FloatArray) -> FloatArray:
        rate = s[:, 1] / s[:, 2]
        reference = rate * (1.0 - rate)
        skill = 1.0 - (s[:, 0] / s[:, 2]) / reference
        return np.where(reference > 0.0, skill, np.nan)

    return _from_sums([(q - y) ** 2, y, np.ones(codes.size)], codes, tasks, finish)


def ece_of(q: FloatArray, y: FloatArray, codes: IntArray, tasks: int) -> Weighted:
    """Expected calibration error, as :func:`demur.measure.calibration.ece`."""
    cell = codes * BINS + bin_index(q)
    gaps = np.bincount(cell, weights=q - y, minlength=tasks * BINS).reshape(tasks, BINS)
    rows = np.bincount(codes, minlength=tasks).astype(np.float64)

    def of(counts: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(counts @ gaps).sum(axis=1) / (counts @ rows)
        return np.asarray(error, dtype=np.float64)

    return Weighted(of, codes.size)


def _rank_area(right: FloatArray, wrong: FloatArray) -> FloatArray:
    """AUROC from the weight of right and wrong replies at each level, (B, levels), lowest first.

    Mann and Whitney's statistic: a right reply beats all wrong ones below it and half of those
    level with it. ``nan`` where either class has no weight.
    """
    below = np.cumsum(wrong, axis=1) - wrong
    wins = (right * (below + 0.5 * wrong)).sum(axis=1)
    pairs = right.sum(axis=1) * wrong.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0.0, wins / pairs, np.nan)


def _from_levels(
    q: FloatArray,
    y: FloatArray,
    codes: IntArray,
    tasks: int,
    finish: Callable[[FloatArray, FloatArray], FloatArray],
) -> Weighted:
    """A measure ``finish`` of the weight of right and wrong replies at each level of confidence.

    Both are (B, levels), lowest level first. With few distinct confidences the weights are a matrix
    product; with many, rows are sorted once and summed level by level. Of many rows the figure
    itself is exact, and resamples differ from it as 256 steps of equally many rows say.
    """
    levels, level = np.unique(q, return_inverse=True)
    m = levels.size
    if m <= _FEW_LEVELS:
        return Weighted(_by_level(y, codes, tasks, level, m, finish), codes.size)
    if codes.size > _MANY_ROWS and m > _STEPS:
        rows = np.bincount(level, minlength=m).astype(np.float64)
        hits = np.bincount(level, weights=y, minlength=m).astype(np.float64)
        below = (np.cumsum(rows) - rows) / codes.size  # equal confidences share a step
        step = (below * _STEPS).astype(np.int64)[level]
        coarse = _by_level(y, codes, tasks, step, _STEPS, finish)
        shift = finish(hits[None], (rows - hits)[None]) - coarse(np.ones((1, tasks)))
        return Weighted(lambda w: coarse(w) + shift, codes.size)

    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(m))
    task, good = codes[order], y[order]

    def of(counts: FloatArray) -> FloatArray:
        block = max(1, _CELLS // codes.size)
        values = []
        for start in range(0, len(counts), block):
            weight = counts[start : start + block][:, task]
            total = np.add.reduceat(weight, starts, axis=1)
            hits = np.add.reduceat(weight * good, starts, axis=1)
            values.append(finish(hits, total - hits))
        return np.concatenate(values)

    return Weighted(of, codes.size)


def _by_level(
    y: FloatArray,
    codes: IntArray,
    tasks: int,
    level: IntArray,
    m: int,
    finish: Callable[[FloatArray, FloatArray], FloatArray],
) -> Callable[[FloatArray], FloatArray]:
    """``finish`` of the weights at each of ``m`` levels, by a table of tasks x levels.

    Weights are whole numbers, which half the memory holds exactly up to 2^24.
    """
    cell, size = codes * m + level, tasks * m
    kind: Any = np.float32 if codes.size < 2**22 else np.float64
    right = np.bincount(cell, weights=y, minlength=size).reshape(tasks, m).astype(kind)
    wrong = np.bincount(cell, weights=1.0 - y, minlength=size).reshape(tasks, m).astype(kind)

    def of(counts: FloatArray) -> FloatArray:
        drawn = counts.astype(kind)
        return finish((drawn @ right).astype(np.float64), (drawn @ wrong).astype(np.float64))

    return of


def auroc_of(q: FloatArray, y: FloatArray, codes: IntArray, tasks: int) -> Weighted:
    """AUROC, equal to scikit-learn's on the rows repeated by their counts."""
    return _from_levels(q, y, codes, tasks, _rank_area)


def _risks(right: FloatArray, wrong: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weight, coverage and risk (B, levels) as levels are let in, the surest first."""
    weight = (right + wrong)[:, ::-1]
    kept = np.cumsum(weight, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return weight, kept / kept[:, -1:], np.cumsum(wrong[:, ::-1], axis=1) / kept


def aurc_of(q: FloatArray, y: FloatArray, codes: IntArray, tasks: int) -> Weighted:
    """The area of :func:`demur.measure.calibration.risk_coverage`."""

    def finish(right: FloatArray, wrong: FloatArray) -> FloatArray:
        weight, _, risk = _risks(right, wrong)
        with np.errstate(invalid="ignore", divide="ignore"):
            area = np.where(weight > 0.0, weight * risk, 0.0).sum(axis=1) / weight.sum(axis=1)
        return np.asarray(area, dtype=np.float64)

    return _from_levels(q, y, codes, tasks, finish)


def coverage_at_risk_of(
    q: FloatArray, y: FloatArray, codes: IntArray, tasks: int, limit: float
) -> Weighted:
    """As :func:`demur.measure.calibration.coverage_at_risk`."""

    def finish(right: FloatArray, wrong: FloatArray) -> FloatArray:
        _, coverage, risk = _risks(right, wrong)
        best = np.where(risk <= limit, coverage, 0.0).max(axis=1)
        return np.where(np.isfinite(coverage[:, -1]), best, np.nan)

    return _from_levels(q, y, codes, tasks, finish)


def slopes_of(
    x: FloatArray, z: FloatArray, y: FloatArray, codes: IntArray, tasks: int
) -> tuple[Weighted, Weighted]:
    """Slopes of ``y`` on ``x`` and on ``z``, all (n,), as least squares with an intercept has them.

    From the normal equations of weighted sums; equal to the slopes of
    :func:`demur.measure.belief.adoption_slope` on x = 1 - p and z = r, and ``nan`` where those are.
    """
    columns = [v.astype(np.float64) - (v.mean() if v.size else 0.0) for v in (x, z, y)]
    a, b, t = columns  # shifted first, so that little is lost in the differences below
    sums = [np.ones(codes.size), a, b, t, a * a, b * b, a * b, a * t, b * t]

    def slope(s: FloatArray, which: int) -> FloatArray:
        mean = s / s[:, :1]
        _, ma, mb, mt, maa, mbb, mab, mat, mbt = mean.T
        aa, bb, ab = maa - ma * ma, mbb - mb * mb, mab - ma * mb
        at, bt = mat - ma * mt, mbt - mb * mt
        if which:
            aa, bb, at, bt = bb, aa, bt, at
        both = (aa > _FLAT) & (bb > _FLAT)
        apart = aa * bb - ab * ab
        joint = np.where(apart > _ALIGNED * aa * bb, (at * bb - bt * ab) / apart, np.nan)
        return np.where(both, joint, np.where(aa > _FLAT, at / aa, np.nan))

    first, second = (_from_sums(sums, codes, tasks, partial(slope, which=k)) for k in (0, 1))
    return first, second
