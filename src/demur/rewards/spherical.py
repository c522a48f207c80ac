"""The spherical score (Roby 1965; Gneiting and Raftery 2007, section 4.1): proper and bounded.

For an outcome of probability q_y it is ``q_y / sqrt(q^2 + (1 - q)^2)``, in [0, 1].
"""

from __future__ import annotations

import math

from demur.rewards.base import RewardPart, calibration_part


def spherical() -> RewardPart:
    """Pay the score expected under the verdict: ``(v q + (1 - v)(1 - q)) / |(q, 1 - q)|``."""
    return calibration_part(_score, worst=0.0)


def _score(q: float, v: float) -> float:
    return (v * q + (1 - v) * (1 - q)) / math.hypot(q, 1 - q)
