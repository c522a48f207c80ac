"""From a private share to a probability: the one table that a few labels buy.

The share of the modal answer among K claim-free samples orders tasks by knowledge but is no
probability: a model can be unanimous and wrong. Labelled tasks turn shares into P(modal answer
right), monotone by isotonic regression (pool adjacent violators, Barlow et al. 1972).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.isotonic import IsotonicRegression

from demur.measure.belief import FloatArray

PRIOR = 1.0


@dataclass(frozen=True)
class ShareTable:
    """P(modal answer right) at some shares; linear between them, constant outside."""

    shares: tuple[float, ...]
    rates: tuple[float, ...]

    def __call__(self, share: ArrayLike) -> FloatArray:
        """The probability for each share, of the argument's shape."""
        return np.asarray(np.interp(np.asarray(share, np.float64), self.shares, self.rates))


IDENTITY = ShareTable((0.0, 1.0), (0.0, 1.0))
"""Takes the share itself for the probability: what is left without any label."""


def fit_shares(shares: Sequence[float], rights: Sequence[bool], prior: float = PRIOR) -> ShareTable:
    """Fit the table on labelled tasks; without any, ``IDENTITY``.

    Each distinct share is one bin, smoothed by ``prior`` pseudo-counts of the base rate, and the
    bins are pooled until they rise.

    >>> table = fit_shares([0.25, 0.25, 1.0, 1.0], [False, False, True, True], prior=0.0)
    >>> table([0.25, 0.625, 1.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    if not len(shares):
        return IDENTITY
    share, right = np.asarray(shares, np.float64), np.asarray(rights, np.float64)
    grid, bins = np.unique(share, return_inverse=True)
    counts = np.bincount(bins).astype(np.float64)
    smooth = (np.bincount(bins, weights=right) + prior * right.mean()) / (counts + prior)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(grid, smooth, counts).predict(grid)
    return ShareTable(tuple(grid.tolist()), tuple(np.asarray(fitted).tolist()))
