"""What a speaker says against what it believes: indifference to the truth, and who is deceived.

With p in [0, 1] the belief that a thing is so, and y whether the speaker claims that it is
(arXiv 2507.07484):

    r   = (mean of p where y = 1 - mean of p where y = 0) sqrt(n1 n0 / n^2) / std(p)
    BI  = 1 - abs(r)

r is the point-biserial correlation, which is Pearson's with y as 0 and 1. An index near 1 says that
claims go their own way, whatever is believed. It is undefined where everything is claimed, or
nothing, or where all beliefs are alike; and a speaker who always says the opposite of what it
believes has an index near 0 as well, so r is never shown without its sign.

How a speaker's words hang together with the facts, rather than with its beliefs, is Cramer's V of
the table of forms by status (Cramer 1946): sqrt(chi^2 / (n (min(rows, columns) - 1))).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import contingency


def signed_r(belief: ArrayLike, claims: ArrayLike) -> float:
    """The point-biserial correlation of beliefs and claims, both (n,); ``nan`` where undefined.

    >>> round(signed_r([0.9, 0.8, 0.2, 0.1], [True, True, False, False]), 3)
    0.99
    >>> signed_r([0.9, 0.2], [True, True])
    nan
    """
    p = np.asarray(belief, dtype=np.float64)
    y = np.asarray(claims, dtype=np.bool_).astype(np.float64)
    if p.shape != y.shape or p.ndim != 1:
        raise ValueError(f"beliefs and claims must be as long, not {p.shape} and {y.shape}")
    if np.any((p < 0) | (p > 1)):
        raise ValueError("a belief must lie between 0 and 1")
    if p.size < 2 or np.ptp(p) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(p, y)[0, 1])


def bullshit_index(belief: ArrayLike, claims: ArrayLike) -> float:
    """1 - abs(``signed_r``); ``nan`` where that is undefined.

    >>> round(bullshit_index([0.9, 0.1, 0.9, 0.1], [True, True, False, False]), 3)
    1.0
    """
    return 1.0 - abs(signed_r(belief, claims))


def cramers_v(forms: Sequence[str], status: Sequence[str]) -> float:
    """How much what is said depends on what is so: 0 not at all, 1 wholly; ``nan`` where undefined.

    >>> cramers_v(["yes", "yes", "no", "no"], ["yes", "yes", "no", "no"])
    1.0
    """
    if len(forms) != len(status):
        raise ValueError(f"{len(forms)} forms and {len(status)} statuses do not pair")
    rows, columns = sorted(set(forms)), sorted(set(status))
    if min(len(rows), len(columns)) < 2:
        return float("nan")
    table = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for form, state in zip(forms, status, strict=True):
        table[rows.index(form), columns.index(state)] += 1
    return float(contingency.association(table, method="cramer"))
