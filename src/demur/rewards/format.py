"""Format: whether the reply could be read at all. It needs no anchor, so it never abstains."""

from __future__ import annotations

from demur.rewards.base import RewardPart
from demur.schema import Component, Said, Unparsed, Verdict


def format() -> RewardPart:
    """Pay 1 for a reply that could be read and 0 otherwise, whatever the verdict."""

    def part(reply: Said, verdict: Verdict) -> Component:
        return Component(0.0 if isinstance(reply, Unparsed) else 1.0, "all")

    return part
