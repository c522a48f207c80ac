"""The diversity measures of a whole table of private samples, a row a task, as arrays.

The table has the columns ``task_id``, ``truth`` and ``answers`` (a list of answers a row, null for
a sample without one), and perhaps ``family``. The measures are those of
:mod:`demur.measure.diversity`; tests hold the two equal.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from demur.measure.diversity import maj_at_k, pass_at_k, vote_classes
from demur.measure.table import Columns, MissingColumnError

FloatArray = NDArray[np.float64]
K = 8
"""The k of ``pass_at_8`` and ``maj_at_8``."""
SAMPLE_METRICS = (
    *("distinct_answers", "entropy", "pass_at_1", "pass_at_8", "maj_at_8"),
    *("weighted_maj_at_8", "max_confidence_at_8"),
)


def _majorities(
    n: NDArray[np.int64],
    right: NDArray[np.int64],
    sizes: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> FloatArray:
    """maj@K of each task; ``sizes`` (classes,) lists the wrong classes, grouped by ``starts``."""
    out = np.full(n.size, np.nan)
    groups = np.split(sizes, starts[1:])
    for row in np.flatnonzero(n >= K).tolist():
        out[row] = maj_at_k([int(right[row]), *groups[row].tolist()], 0, K)
    return out


def per_task(columns: Columns) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Each measure's value for each task, (tasks,), and why a measure is missing.

    ``nan`` marks a task where it is undefined: no samples, fewer than K of them, truth unknown.

    >>> table = Columns({"answers": [["7", "7.0", None, "8"]], "truth": ["7"]})
    >>> values, _ = per_task(table)
    >>> values["distinct_answers"].tolist(), values["pass_at_8"].tolist()
    ([3.0], [nan])
    """
    try:
        lists = [[] if answers is None else list(answers) for answers in columns.raw("answers")]
    except MissingColumnError as error:
        return {}, dict.fromkeys(SAMPLE_METRICS, str(error))
    n = np.array([len(answers) for answers in lists], dtype=np.int64)
    flat = list(chain.from_iterable(lists))
    row = np.repeat(np.arange(columns.n), n)
    truth = columns.answer("truth") if "truth" in columns else None
    codes = columns.encode(flat, row)
    classes = codes + 1
    for k, book in enumerate(columns.books):
        if book.grader.key is None:  # answers that only compare in pairs have no number in common
            chosen = np.flatnonzero(columns.book_of == k).tolist()
            split = chain.from_iterable(vote_classes(lists[i], book.grader.same) for i in chosen)
            classes[columns.book_of[row] == k] = np.fromiter(split, dtype=np.int64)
    width = int(classes.max()) + 1 if flat else 1
    _, first, sizes = np.unique(row * width + classes, return_index=True, return_counts=True)
    owner = row[first]  # ascending: classes of one task stand together

    share = sizes / n[owner]
    entropy = np.bincount(owner, weights=-share * np.log(share), minlength=columns.n)
    distinct = np.bincount(owner, minlength=columns.n).astype(np.float64)
    values = {
        "distinct_answers": np.where(n > 0, distinct, np.nan),
        "entropy": np.where(n > 0, np.abs(entropy), np.nan),
    }
    if truth is None:
        return values, dict.fromkeys(SAMPLE_METRICS[2:], "the column truth is missing")
    hit = columns.agree(codes[first], truth[owner], owner) == 1
    right = np.bincount(owner[hit], weights=sizes[hit], minlength=columns.n).astype(np.int64)
    wrong = np.bincount(owner[~hit], minlength=columns.n).astype(np.int64)
    majority = _majorities(n, right, sizes[~hit], np.cumsum(wrong) - wrong)
    values["pass_at_1"] = np.where((truth >= 0) & (n > 0), right / np.maximum(n, 1), np.nan)
    values["pass_at_8"] = np.where(truth >= 0, pass_at_k(n, right, K), np.nan)
    values["maj_at_8"] = np.where(truth >= 0, majority, np.nan)
    try:
        sure = [[] if c is None else list(c) for c in columns.raw("confidences")]
    except MissingColumnError as error:
        return values, dict.fromkeys(SAMPLE_METRICS[5:], str(error))
    hits = columns.agree(codes, truth[row], row) == 1
    ends = np.cumsum(n)
    for name, choose in (("weighted_maj_at_8", weighted_vote), ("max_confidence_at_8", surest)):
        values[name] = np.full(columns.n, np.nan)
        for i in np.flatnonzero((n >= K) & (truth >= 0)).tolist():
            first = slice(ends[i] - n[i], ends[i] - n[i] + K)
            stated = np.array([np.nan if c is None else c for c in sure[i][:K]], dtype=np.float64)
            values[name][i] = choose(classes[first], stated, hits[first])
    return values, {}


def weighted_vote(
    classes: NDArray[np.int64], confidences: FloatArray, right: NDArray[np.bool_]
) -> float:
    """Whether the answer with the largest sum of confidences is right; ties share the credit.

    All (k,). A sample without an answer (class 0) or a confidence votes for nothing; without any
    vote the outcome is wrong, as a reply that could not be read is (RLCR, arXiv 2507.16806, uses
    this vote and ``surest`` at test time).

    >>> weighted_vote(np.array([1, 1, 2]), np.array([0.3, 0.3, 0.9]), np.array([True, True, False]))
    0.0
    """
    votes = np.where((classes > 0) & np.isfinite(confidences), confidences, 0.0)
    sums = np.bincount(classes, weights=votes)
    top = np.flatnonzero(np.isclose(sums, sums.max()) & (sums > 0))
    return float(np.mean([right[classes == c].any() for c in top])) if top.size else 0.0


def surest(classes: NDArray[np.int64], confidences: FloatArray, right: NDArray[np.bool_]) -> float:
    """Whether the sample that states the most confidence is right; ties share the credit.

    >>> surest(np.array([1, 2, 2]), np.array([0.9, 0.9, 0.3]), np.array([True, False, False]))
    0.5
    """
    stated = np.where((classes > 0) & np.isfinite(confidences), confidences, -1.0)
    return float(right[stated == stated.max()].mean()) if stated.max() >= 0 else 0.0
