"""The Brier score (Brier 1950), the proper score that RLCR puts beside correctness.

The released RLCR code pays ``1 - (q - v)^2`` in [0, 1]; the paper (arXiv 2507.16806) writes
``-(q - v)^2`` in [-1, 0]. They differ by a constant. With a verdict v that is a probability
rather than 0 or 1, the optimum is still q = E[v].
"""

from __future__ import annotations

from demur.rewards.base import RewardPart, calibration_part


def brier(shifted: bool = True) -> RewardPart:
    """Pay ``1 - (q - v)^2``, or ``-(q - v)^2`` with ``shifted=False``."""
    best = 1.0 if shifted else 0.0
    return calibration_part(lambda q, v: best - (q - v) ** 2, worst=best - 1.0)
