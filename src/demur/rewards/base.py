"""What a reward part is: a reply and a verdict in, one component out.

A part never asks a model and never sees an anchor. It gives ``None`` when the anchor abstains, and
its worst value when the reply could not be read, so that an unreadable reply is never the better
bet (RLCR, arXiv 2507.16806: accuracy and Brier are zero when the format fails).
"""

from __future__ import annotations

from collections.abc import Callable

from demur.schema import Component, Reply, Said, Span, Unparsed, Verdict

RewardPart = Callable[[Said, Verdict], Component | None]
RewardFactory = Callable[..., RewardPart]


def calibration_part(score: Callable[[float, float], float], worst: float) -> RewardPart:
    """A part that scores the stated confidence q against the verdict v as ``score(q, v)``."""
    span: Span = "confidence"

    def part(reply: Said, verdict: Verdict) -> Component | None:
        if verdict is None:
            return None
        if not isinstance(reply, Reply):
            return Component(worst, span) if isinstance(reply, Unparsed) else None
        return Component(score(reply.confidence, verdict), span)

    return part
