"""Correctness: the anchor's probability that the answer is right, paid to the answer."""

from __future__ import annotations

from demur.rewards.base import RewardPart
from demur.schema import Component, Said, Unparsed, Verdict


def correctness() -> RewardPart:
    """Pay the verdict itself, in [0, 1]; 0 for a reply that could not be read."""

    def part(reply: Said, verdict: Verdict) -> Component | None:
        if verdict is None:
            return None
        return Component(0.0 if isinstance(reply, Unparsed) else verdict, "answer")

    return part
