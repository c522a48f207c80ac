"""How well a stated confidence tells right replies from wrong ones.

Every function takes ``confidence`` (n,), the stated probabilities q in [0, 1], and ``right`` (n,),
the outcomes y as booleans. An undefined measure (no reply at all, one class only) is ``nan``, which
the caller writes as null; it is never 0. No one figure is enough: a policy that says its base rate
every time has a perfect ECE and tells nothing apart, so AUROC, Brier skill and the spread of the
confidence stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

FloatArray = NDArray[np.float64]
BINS = 10


class ReliabilityBin(TypedDict):
    """One bar of a reliability diagram; the two means are ``None`` where the bin is empty."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class BrierParts:
    """The Brier score taken apart; ``total`` puts it together again."""

    reliability: float
    resolution: float
    uncertainty: float
    within: float

    @property
    def total(self) -> float:
        """Reliability - resolution + uncertainty + within: the Brier score."""
        return self.reliability - self.resolution + self.uncertainty + self.within


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Error rate among the replies kept, as ever less sure replies are let in.

    ``coverage`` and ``risk`` have shape (m,), one point for each distinct confidence.
    """

    coverage: FloatArray
    risk: FloatArray
    area: float


def _pair(confidence: ArrayLike, right: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both arrays as float64, checked: one dimension, one length, confidences in [0, 1]."""
    q = np.asarray(confidence, dtype=np.float64)
    y = np.asarray(right, dtype=np.float64)
    if q.ndim != 1 or q.shape != y.shape:
        raise ValueError(
            f"confidence and right must be flat and equally long, not {q.shape} and {y.shape}"
        )
    if not bool(np.all((q >= 0.0) & (q <= 1.0))):
        raise ValueError("a confidence must be a number between 0 and 1; drop missing ones first")
    if not bool(np.all((y == 0.0) | (y == 1.0))):
        raise ValueError("right must be true or false; drop unknown ones first")
    return q, y


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else float("nan")


def bin_index(confidence: FloatArray, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence: equal widths, left-closed, with 1.0 in the last. Shape (n,).

    >>> bin_index(np.array([0.0, 0.1, 0.19, 0.7, 1.0])).tolist()
    [0, 1, 1, 7, 9]
    """
    edges = np.arange(1, bins) / bins
    return np.searchsorted(edges, confidence, side="right").astype(np.int64)


def accuracy(right: ArrayLike) -> float:
    """Share of right replies, mean(y); ``nan`` when there are none.

    >>> accuracy([True, False, True, True])
    0.75
    """
    return _mean(np.asarray(right, dtype=np.float64))


def brier(confidence: ArrayLike, right: ArrayLike) -> float:
    """Brier score mean((q - y)^2) (Brier 1950): 0 is best; ``nan`` when there are no replies.

    >>> round(brier([0.8, 0.5], [True, False]), 6)  # (0.04 + 0.25) / 2
    0.145
    """
    q, y = _pair(confidence, right)
    return _mean((q - y) ** 2)


def brier_decomposition(
    confidence: ArrayLike, right: ArrayLike, bins: int | None = None
) -> BrierParts:
    """Murphy's decomposition (1973), with the within-bin terms of Stephenson and others (2008).

    Over groups k of n_k replies with mean confidence q_k and accuracy y_k, and base rate y:

        reliability = sum n_k (q_k - y_k)^2 / n       lower is better
        resolution  = sum n_k (y_k - y)^2 / n         higher is better
        uncertainty = y (1 - y)
        within      = sum n_k (var_k(q) - 2 cov_k(q, y)) / n

    Brier = reliability - resolution + uncertainty + within, exactly. The groups are the distinct
    confidences (``bins=None``), where nothing varies within a group and ``within`` is 0, or
    ``bins`` equal bins as in :func:`ece`. All parts are ``nan`` when there are no replies.

    >>> parts = brier_decomposition([0.5, 0.5, 1.0, 1.0], [True, False, True, True])
    >>> parts.reliability, parts.resolution, parts.uncertainty, parts.within
    (0.0, 0.0625, 0.1875, 0.0)
    >>> parts.total == brier([0.5, 0.5, 1.0, 1.0], [True, False, True, True])
    True
    """
    q, y = _pair(confidence, right)
    if not q.size:
        return BrierParts(*[float("nan")] * 4)
    groups = np.unique(q, return_inverse=True)[1] if bins is None else bin_index(q, bins)
    n = np.bincount(groups)
    groups, n = np.unique(groups, return_inverse=True)[1], n[n > 0]
    mean_q = np.bincount(groups, weights=q) / n
    mean_y = np.bincount(groups, weights=y) / n
    rate = y.mean()
    within = 0.0
    if bins is not None:
        deviation = q - mean_q[groups]
        within = float(np.mean(deviation**2 - 2.0 * deviation * (y - mean_y[groups])))
    share = n / q.size
    return BrierParts(
        reliability=float(share @ (mean_q - mean_y) ** 2),
        resolution=float(share @ (mean_y - rate) ** 2),
        uncertainty=float(rate * (1.0 - rate)),
        within=within,
    )


def brier_skill(confidence: ArrayLike, right: ArrayLike) -> float:
    """Brier skill 1 - Brier / (y (1 - y)) against always saying the base rate y of these outcomes.

    1 is perfect, 0 is no better than the constant, negative is worse. ``nan`` when the outcomes are
    all alike (the constant is then perfect) or there are none.

    >>> round(brier_skill([0.9, 0.1], [True, False]), 6)  # 1 - 0.01 / 0.25
    0.96
    >>> brier_skill([0.9, 0.9], [True, True])
    nan
    """
    q, y = _pair(confidence, right)
    rate = _mean(y)
    reference = rate * (1.0 - rate)
    return 1.0 - _mean((q - y) ** 2) / reference if reference > 0.0 else float("nan")


def ece(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error sum_k n_k/n |accuracy_k - confidence_k| (Naeini and others 2015).

    Ten equal bins, left-closed, 1.0 in the last, as in RLCR (arXiv 2507.16806). ``nan`` when there
    are no replies.

    >>> round(ece([0.85, 0.85, 0.2], [True, False, False]), 6)  # 2/3 * 0.35 + 1/3 * 0.2
    0.3
    """
    q, y = _pair(confidence, right)
    if not q.size:
        return float("nan")
    gaps = np.bincount(bin_index(q, bins), weights=q - y, minlength=bins)
    return float(np.abs(gaps).sum() / q.size)


def reliability_bins(
    confidence: ArrayLike, right: ArrayLike, bins: int = BINS
) -> list[ReliabilityBin]:
    """The bars of the reliability diagram, over the bins of :func:`ece`, empty ones included.

    >>> reliability_bins([0.85, 0.85, 0.25], [True, False, False])[8]
    {'low': 0.8, 'high': 0.9, 'n': 2, 'confidence': 0.85, 'accuracy': 0.5}
    >>> reliability_bins([], [])[0]
    {'low': 0.0, 'high': 0.1, 'n': 0, 'confidence': None, 'accuracy': None}
    """
    q, y = _pair(confidence, right)
    where = bin_index(q, bins)
    n = np.bincount(where, minlength=bins)
    sum_q = np.bincount(where, weights=q, minlength=bins)
    sum_y = np.bincount(where, weights=y, minlength=bins)
    return [
        ReliabilityBin(
            low=k / bins,
            high=(k + 1) / bins,
            n=int(n[k]),
            confidence=float(sum_q[k] / n[k]) if n[k] else None,
            accuracy=float(sum_y[k] / n[k]) if n[k] else None,
        )
        for k in range(bins)
    ]


def auroc(confidence: ArrayLike, right: ArrayLike) -> float:
    """Area under the ROC curve: P(a right reply is surer than a wrong one), ties counting half.

    0.5 is no discrimination. ``nan`` when all replies are right, or all wrong, or there are none.
    Computed by scikit-learn.

    >>> auroc([0.9, 0.6, 0.6, 0.2], [True, True, False, False])  # (1 + 1 + 0.5 + 1) / 4
    0.875
    >>> auroc([0.9, 0.6], [True, True])
    nan
    """
    q, y = _pair(confidence, right)
    if not 0.0 < y.sum() < y.size:
        return float("nan")
    return float(roc_auc_score(y, q))


def confidence_std(confidence: ArrayLike) -> float:
    """Standard deviation of the stated confidence (divided by n); 0 says that it has collapsed.

    ``nan`` when there are no replies.

    >>> round(confidence_std([0.5, 0.7, 0.9]), 6)  # sqrt((0.04 + 0 + 0.04) / 3)
    0.163299
    """
    q = np.asarray(confidence, dtype=np.float64)
    return float(q.std()) if q.size else float("nan")


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> RiskCoverage:
    """Risk-coverage curve (El-Yaniv and Wiener 2010) when replies below a confidence are withheld.

    At each distinct confidence t, from the highest, coverage = P(q >= t), risk = P(wrong | q >= t).
    Replies of one confidence cannot be told apart, so they enter as one block. The area is
    sum_blocks (block's share of replies) * (risk once it is in): the usual mean of the risks over
    ranks when there are no ties, and the plain error rate when the confidence is constant. Empty
    arrays and a ``nan`` area when there are no replies.

    >>> curve = risk_coverage([0.9, 0.9, 0.5, 0.1], [True, False, True, False])
    >>> curve.coverage.tolist(), [round(float(r), 4) for r in curve.risk]
    ([0.5, 0.75, 1.0], [0.5, 0.3333, 0.5])
    >>> round(curve.area, 6)  # 0.5 * 0.5 + 0.25 * 0.3333 + 0.25 * 0.5
    0.458333
    """
    q, y = _pair(confidence, right)
    if not q.size:
        return RiskCoverage(np.empty(0), np.empty(0), float("nan"))
    levels, block = np.unique(-q, return_inverse=True)
    n = np.bincount(block, minlength=levels.size)
    wrong = np.bincount(block, weights=1.0 - y, minlength=levels.size)
    coverage = np.cumsum(n) / q.size
    risk = np.cumsum(wrong) / np.cumsum(n)
    return RiskCoverage(coverage, risk, float(n @ risk / q.size))


def coverage_at_risk(confidence: ArrayLike, right: ArrayLike, risk: float = 0.05) -> float:
    """The largest share of replies that can be let through at an error rate of at most ``risk``.

    0.0 is a true value here: no threshold on the confidence is that safe. ``nan`` when there are no
    replies.

    >>> coverage_at_risk([0.9, 0.8, 0.5, 0.1], [True, True, False, True], 0.05)
    0.5
    """
    curve = risk_coverage(confidence, right)
    if not curve.coverage.size:
        return float("nan")
    safe = curve.coverage[curve.risk <= risk]
    return float(safe[-1]) if safe.size else 0.0
