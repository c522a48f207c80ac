"""How varied repeated answers to one question are, and what voting or retrying gets out of them.

A vote is an answer as text, or ``None`` for a sample without a readable answer. "No answer" is a
vote class of its own: dropping such samples before voting hides failures and lets a few readable
ones pass for a majority (a trap in TTRL's code). Which answers count as one is decided by ``same``,
by default :func:`demur.measure.table.same_answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.measure.table import same_answer

FloatArray = NDArray[np.float64]
Same = Callable[[str, str], bool]


def vote_classes(answers: Sequence[str | None], same: Same = same_answer) -> list[int]:
    """The class of each answer, numbered in order; an answer joins the first class it equals.

    >>> vote_classes(["7", "7.0", None, "8", None])
    [0, 0, 1, 2, 1]
    """
    leaders: list[str | None] = []
    classes: list[int] = []
    for answer in answers:
        for k, leader in enumerate(leaders):
            if answer is leader or (
                answer is not None and leader is not None and same(answer, leader)
            ):
                classes.append(k)
                break
        else:
            classes.append(len(leaders))
            leaders.append(answer)
    return classes


def distinct_answers(answers: Sequence[str | None], same: Same = same_answer) -> float:
    """Number of vote classes among the answers, "no answer" included; ``nan`` for no samples.

    >>> distinct_answers(["7", "7.0", None, "8"])
    3.0
    """
    return float(len(set(vote_classes(answers, same)))) if answers else float("nan")


def answer_entropy(answers: Sequence[str | None], same: Same = same_answer) -> float:
    """Shannon entropy -sum p log p of the vote shares, in nats; ``nan`` for no samples.

    >>> round(answer_entropy(["a", "a", "b", "b"]), 6)  # log 2
    0.693147
    """
    if not answers:
        return float("nan")
    shares = np.bincount(vote_classes(answers, same)) / len(answers)
    return abs(float(-(shares @ np.log(shares))))  # abs: one class gives -0.0


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> FloatArray:
    """P(at least one of k samples is right) = 1 - C(n-c, k) / C(n, k) (Chen and others 2021).

    ``n`` samples of which ``c`` are right; both broadcast, and the result has their shape. The
    ratio is the product of (n-c-i) / (n-i) over i < k, so no binomial coefficient overflows.
    ``nan`` where n < k.

    >>> round(float(pass_at_k(10, 3, 2)), 6)  # 1 - 21/45
    0.533333
    >>> float(pass_at_k(4, 2, 8))
    nan
    """
    samples, right = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(c, np.float64))
    if k < 1 or bool(np.any((right < 0) | (right > samples))):
        raise ValueError("pass_at_k needs k >= 1 and 0 <= c <= n")
    missed = np.ones(samples.shape)
    for i in range(k):
        left = np.maximum(samples - i, 1.0)
        missed = missed * np.clip(samples - right - i, 0.0, None) / left
    return np.where(samples >= k, 1.0 - missed, np.nan)


@lru_cache(maxsize=65536)
def _majority(right: int, others: tuple[int, ...], k: int) -> float:
    """The sum in :func:`maj_at_k` for class sizes that are already sorted, so that it caches."""
    total = 0.0
    for top in range(1, min(right, k) + 1):
        rest = k - top
        # ways[drawn][tied]: ways to draw from the other classes, `tied` of them also `top` times
        ways = [[0] * (len(others) + 1) for _ in range(rest + 1)]
        ways[0][0] = 1
        for size in others:
            after = [row[:] for row in ways]  # this class drawn 0 times
            for drawn in range(rest + 1):
                for tied, count in enumerate(ways[drawn]):
                    if count:
                        for take in range(1, min(size, top, rest - drawn) + 1):
                            after[drawn + take][tied + (take == top)] += count * comb(size, take)
            ways = after
        won = sum(count / (tied + 1) for tied, count in enumerate(ways[rest]))
        total += comb(right, top) * won
    return total / comb(right + sum(others), k)


def maj_at_k(sizes: Sequence[int], right: int | None, k: int) -> float:
    """P(a majority vote over k of the n samples is right), ties broken uniformly.

    ``sizes`` are the sizes of the n samples' vote classes and ``right`` the index of the class that
    is right, ``None`` if no sample is. The k samples are drawn without replacement:

        sum over t of C(c, t) / C(n, k) * sum over draws of the k - t others in which no class
        exceeds t, of 1 / (1 + number of classes that tie at t)

    with c the size of the right class, computed exactly by dynamic programming over the classes.
    With k = n it says whether the modal answer is right, with credit 1/m where m classes tie.
    ``nan`` where n < k.

    >>> maj_at_k([2, 2], 0, 4)  # a tie for two
    0.5
    >>> round(maj_at_k([3, 1, 1], 0, 3), 6)  # (1 + 6 + 3/3) / 10: three, two, or a tie of three
    0.8
    >>> maj_at_k([3, 1], 0, 8)
    nan
    """
    if k < 1 or any(size < 0 for size in sizes):
        raise ValueError("maj_at_k needs k >= 1 and class sizes that are not negative")
    if sum(sizes) < k:
        return float("nan")
    if right is None or not sizes[right]:
        return 0.0
    others = sorted((size for i, size in enumerate(sizes) if i != right and size), reverse=True)
    return _majority(int(sizes[right]), tuple(int(size) for size in others), k)
