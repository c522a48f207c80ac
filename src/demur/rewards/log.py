"""The logarithmic score (Good 1952), clipped so that it is bounded.

Unclipped it is proper but not bounded, and beside correctness it breaks the theorem that the most
likely answer wins (RLCR, arXiv 2507.16806): ``p + p log p + (1-p) log(1-p)`` falls in p up to
p = 1/(1+e), so a surely wrong answer given with q = 0 earns more than one that is right 20% of the
time. Clipped at ``floor`` and scaled to [0, 1] its slope is at most 1 and the theorem holds again.
"""

from __future__ import annotations

import math

from demur.errors import ConfigError
from demur.rewards.base import RewardPart, calibration_part


def log(floor: float = 0.01, scaled: bool = True) -> RewardPart:
    """Pay the log score of q, clipped to [floor, 1 - floor] and expected under the verdict.

    ``scaled`` maps it to [0, 1] by dividing by ``-log(floor)`` and adding 1; without, it is in nats
    from ``log(floor)`` to 0, and the theorem fails. Raises ``ConfigError`` unless 0 < floor < 0.5.
    """
    if not 0.0 < floor < 0.5:
        raise ConfigError(f"the log score's floor must lie between 0 and 0.5, not {floor!r}")
    scale, shift = (-math.log(floor), 1.0) if scaled else (1.0, 0.0)

    def score(q: float, v: float) -> float:
        clipped = min(max(q, floor), 1.0 - floor)
        rest = max(1.0 - clipped, floor)  # 1 - (1 - floor) may round below the floor
        nats = v * math.log(clipped) + (1 - v) * math.log(rest)
        return shift + nats / scale

    return calibration_part(score, worst=shift + math.log(floor) / scale)
