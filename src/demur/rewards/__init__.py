"""How a verdict is paid: named parts, their weights, and the one rule that keeps honesty best.

To add a part, write one file with a factory that returns a ``RewardPart`` and name it in
``REWARDS`` (and in ``CALIBRATION_SCORES`` if it scores the stated confidence); the contract tests
then run over it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from demur import registry
from demur.errors import ConfigError, UnknownName
from demur.rewards.base import RewardFactory, RewardPart
from demur.rewards.brier import brier
from demur.rewards.correctness import correctness
from demur.rewards.format import format
from demur.rewards.learnability import learnability
from demur.rewards.log import log
from demur.rewards.self_assessment import self_assessment
from demur.rewards.spherical import spherical
from demur.schema import Component, Reward, Said, Verdict

__all__ = [
    "CALIBRATION_SCORES",
    "OUTCOME_REWARDS",
    "REWARDS",
    "RewardFactory",
    "RewardPart",
    "check_weights",
    "make_parts",
    "score",
]

REWARDS: dict[str, RewardFactory] = {
    "correctness": correctness,
    "brier": brier,
    "spherical": spherical,
    "log": log,
    "format": format,
    "learnability": learnability,
    "self_assessment": self_assessment,
}
"""Every reward part's factory by name; its parameters are its options, apart from ``n``."""

OUTCOME_REWARDS = frozenset({"learnability", "self_assessment"})
"""The parts that pay a seat beside the responder's; they say nothing of an answer."""

CALIBRATION_SCORES = frozenset({"brier", "spherical", "log"})
"""The parts that score the stated confidence; their slope in p is at most 1 a unit of weight."""


def make_parts(
    weights: Mapping[str, float],
    options: Mapping[str, Mapping[str, object]] | None = None,
    *,
    n: int = 2,
) -> dict[str, RewardPart]:
    """Make the parts that ``weights`` names, each with its own options.

    ``n`` is how many replies a move leads to. Raises ``UnknownName`` for a part or option that
    there is not, and ``ConfigError`` for options of a part that is not weighed.
    """
    chosen = options or {}
    for name in chosen:
        if name not in weights:
            raise ConfigError(f"options are given for reward {name!r}, which has no weight")
    return {
        name: registry.make("reward", REWARDS, name, chosen.get(name, {}), {"n": n})
        for name in weights
    }


def score(
    reply: Said,
    verdict: Verdict,
    weights: Mapping[str, float],
    parts: Mapping[str, RewardPart],
    spans: bool = True,
) -> Reward:
    """Pay one reply: every weighted part that gives a component, kept by name.

    With ``spans`` each component pays its own span of the reply; without, every component pays the
    whole reply, as published systems do. A part that abstains leaves its component out.
    """
    components: dict[str, Component] = {}
    for name in weights:
        if name not in parts:
            raise UnknownName("reward", name, parts)
        component = parts[name](reply, verdict)
        if component is not None:
            components[name] = component if spans else Component(component.value, "all")
    return Reward(components, dict(weights))


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights under which an honest best answer is not the best reply.

    With correctness weight c and calibration scores of total weight b, the expected reward of a
    calibrated answer that is right with probability p has slope at least c - b at p = 0 (Brier and
    spherical: slope -1 there). With b > c, failing on purpose with confidence 0 would beat an
    honest attempt. Raises ``ConfigError`` or ``UnknownName``.
    """
    if not weights:
        raise ConfigError("a reward needs at least one part: add rewards.correctness = 1.0")
    for name, weight in weights.items():
        if name not in REWARDS:
            raise UnknownName("reward", name, REWARDS)
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"the weight of reward {name!r} must be 0 or more, not {weight!r}")
    calibration = sum(weights[name] for name in sorted(CALIBRATION_SCORES & set(weights)))
    right = weights.get("correctness", 0.0)
    if calibration > right + 1e-12:
        named = " + ".join(sorted(CALIBRATION_SCORES & set(weights)))
        raise ConfigError(
            f"the weight of {named} ({calibration:g}) must not exceed the weight of correctness "
            f"({right:g}), or failing on purpose with confidence 0 would beat an honest answer"
        )
