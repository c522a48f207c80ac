"""Learnability: what a question is worth to a proposer, from how its answers came out.

With k of n answers counted right (by the run's anchor) and p = k / n; published forms by name:

| variant | pays | source |
|---|---|---|
| sqlm | 1 if 1 < k < n, else 0 | SQLM's released code (arXiv 2508.03682) |
| sqlm_paper | 1 if 0 < k < n, else 0 | SQLM as written: not all agree, not none |
| r_zero | 1 - 2 abs(p - 1/2) | R-Zero (arXiv 2508.05004) |
| r_zero_code | min(p, 1 - p) | its released code, less the share of alike questions |
| absolute_zero | 1 - p if p > 0, else 0 | Absolute Zero (arXiv 2505.03335) |
| spice | exp(-(v - 1/4)^2 / 0.02), v = p (1 - p) | SPICE |
| dr_zero | (n - k) / (n - 1) if 0 < k < n, else 0 | Dr. Zero |
| variance | 4 p (1 - p) | the learnability of verifiers' environments |

R-Zero's code clusters a batch by BLEU and takes a question's share of its cluster off; here a
question that was asked before is worth nothing in any variant (``games.propose``), which does more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from demur.errors import ConfigError, UnknownName
from demur.rewards.base import RewardPart
from demur.schema import Component, Said, Unparsed, Verdict

VARIANTS: dict[str, Callable[[int, int], float]] = {
    "sqlm": lambda k, n: float(1 < k < n),
    "sqlm_paper": lambda k, n: float(0 < k < n),
    "r_zero": lambda k, n: 1.0 - 2.0 * abs(k / n - 0.5),
    "r_zero_code": lambda k, n: min(k / n, 1.0 - k / n),
    "absolute_zero": lambda k, n: 1.0 - k / n if k else 0.0,
    "spice": lambda k, n: math.exp(-((k / n * (1 - k / n) - 0.25) ** 2) / 0.02),
    "dr_zero": lambda k, n: (n - k) / (n - 1) if 0 < k < n else 0.0,
    "variance": lambda k, n: 4.0 * k / n * (1.0 - k / n),
}
"""What each variant pays for k right answers of n."""


def learnability(n: int, variant: str = "sqlm", unread: float | None = None) -> RewardPart:
    """Pay a question by the share of its ``n`` answers that were right, its verdict.

    A question that could not be read earns ``unread`` (SPICE: -0.1), or takes no part in the update
    (``None``). One that was asked before has the outcome 0 and is paid 0, not ``variant`` of it.
    Raises ``ConfigError`` for fewer than two answers.
    """
    if variant not in VARIANTS:
        raise UnknownName("variant of learnability", variant, VARIANTS)
    if n < 2:
        raise ConfigError(f"learnability needs two answers a question or more, not {n}")

    def part(reply: Said, verdict: Verdict) -> Component | None:
        if isinstance(reply, Unparsed):
            return None if unread is None else Component(unread)
        if verdict is None:
            return None
        if getattr(reply, "outcome", None) is not None:
            return Component(0.0)
        return Component(VARIANTS[variant](round(verdict * n), n))

    return part
