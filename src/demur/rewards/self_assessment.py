"""Self-assessment: how well a policy said that its reply is right, and that it can be read.

With gt = (the verdict, 1 if the reply could be read) and p what was said (PCL, arXiv 2507.20252):

| variant | pays |
|---|---|
| brier | 1 - mean_i (gt_i - p_i)^2 |
| absolute | 1 - mean_i abs(gt_i - p_i) |
| released | 1 - mean_i abs(gt_i - p_i) / max(gt_i, p_i), and 0 where a term is 0 / 0 |

The released code's form pays nothing at all for calling a wrong answer wrong (0 / 0) and half for
calling it right, so claiming success always pays; it is kept to show that.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.errors import UnknownName
from demur.rewards.base import RewardPart
from demur.schema import Assessment, Component, Said, Verdict

VARIANTS = ("brier", "absolute", "released")


def self_assessment(variant: str = "brier") -> RewardPart:
    """Pay an assessment against the verdict on the reply; 0 for one that could not be read."""
    if variant not in VARIANTS:
        raise UnknownName("variant of self_assessment", variant, VARIANTS)

    def part(reply: Said, verdict: Verdict) -> Component | None:
        if verdict is None:
            return None
        if not isinstance(reply, Assessment):
            return Component(0.0)
        pairs = ((verdict, reply.right), (float(reply.read), reply.format))
        return Component(_score(pairs, variant))

    return part


def _score(pairs: Sequence[tuple[float, float]], variant: str) -> float:
    if variant == "brier":
        losses = [(gt - p) ** 2 for gt, p in pairs]
    elif variant == "absolute":
        losses = [abs(gt - p) for gt, p in pairs]
    elif any(max(pair) == 0 for pair in pairs):
        return 0.0
    else:
        losses = [abs(gt - p) / max(gt, p) for gt, p in pairs]
    return 1.0 - sum(losses) / len(losses)
