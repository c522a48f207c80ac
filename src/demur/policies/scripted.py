"""Policies that follow a rule: the baselines that every table shows.

They go through the same games and the same evaluation as a model. What they know of an exchange is
its situation: the claim, and the private state (modal own answer, share, confidence) of the model
that they stand in for. They write text in the protocol, so nothing downstream can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from demur.measure.belief import (
    KEEP,
    TAKE,
    THIRD,
    Posterior,
    best_reply,
    panel_likelihoods,
    posterior,
    reply_value,
    update,
)
from demur.reply import render
from demur.schema import Claim, Completion, Dialogue, Sampling, Task
from demur.tasks.grader import same

GUESS_RATE = 0.1


@dataclass(frozen=True)
class Situation:
    """What is known of one exchange. ``belief`` is P(own answer right), calibrated if it can be."""

    task: Task
    claim: Claim | None
    own: str
    confidence: float
    belief: float


Rule = Callable[[Situation, np.random.Generator], tuple[str, float]]


def weigh(situation: Situation, default_rate: float = 0.5) -> Posterior:
    """The Bayes posterior of a situation; an undisclosed reliability counts as ``default_rate``."""
    claim = situation.claim
    assert claim is not None
    rate = default_rate
    if claim.disclosed and claim.reliability is not None:
        rate = claim.reliability
    rate = min(max(rate, 0.01), 0.99)
    belief = min(max(situation.belief, 0.001), 0.999)
    grader = situation.task.grader
    agrees = same(situation.own, claim.answer, grader)
    if not claim.votes:
        return posterior(belief, rate, agrees, GUESS_RATE, GUESS_RATE)
    for_claim = sum(same(a, claim.answer, grader) for _, a in claim.votes)
    for_own = sum(same(a, situation.own, grader) for _, a in claim.votes)
    likelihoods = panel_likelihoods(for_claim, for_own, len(claim.votes), rate, GUESS_RATE)
    return update(belief, likelihoods, agrees, GUESS_RATE)


def bayes(situation: Situation) -> tuple[str, float]:
    """The reply most likely right, and that probability.

    A third answer would be a guess, so it is never given.
    """
    claim = situation.claim
    if claim is None or claim.speaker == "self":
        return situation.own, situation.belief
    beliefs = weigh(situation)
    agrees = same(situation.own, claim.answer, situation.task.grader)
    action, _ = best_reply(beliefs, agrees, GUESS_RATE)
    if int(action) == TAKE:
        return claim.answer, float(beliefs.claim)
    return situation.own, float(beliefs.own)


def probability_right(situation: Situation, answer: str) -> float:
    """What Bayes' rule gives for any answer: the own one, the claimed one, or a third."""
    grader, claim = situation.task.grader, situation.claim
    mine = same(answer, situation.own, grader)
    if claim is None or claim.speaker == "self":
        return situation.belief if mine else (1 - situation.belief) * GUESS_RATE
    beliefs = weigh(situation)
    agrees = same(situation.own, claim.answer, grader)
    takes = same(answer, claim.answer, grader)
    action = KEEP if mine else TAKE if takes else THIRD
    return float(reply_value(beliefs, action, agrees, GUESS_RATE))


def always_keep(situation: Situation, rng: np.random.Generator) -> tuple[str, float]:
    """Keeps the own answer whatever is said."""
    return situation.own, situation.confidence


def always_adopt(situation: Situation, rng: np.random.Generator) -> tuple[str, float]:
    """Takes every claim."""
    return (situation.claim.answer if situation.claim else situation.own), situation.confidence


def threshold(limit: float) -> Rule:
    """Keeps the own answer where the own first confidence exceeds ``limit``.

    The rule does about as well as trained models in DuET-PD; the limit is tuned on a separate
    split.
    """

    def rule(situation: Situation, rng: np.random.Generator) -> tuple[str, float]:
        if situation.claim is None or situation.confidence > limit:
            return situation.own, situation.confidence
        return situation.claim.answer, situation.confidence

    return rule


def coin(situation: Situation, rng: np.random.Generator) -> tuple[str, float]:
    """Keeps or takes by a fair coin, with a confidence drawn from the levels."""
    keeps = situation.claim is None or rng.random() < 0.5
    answer = situation.own if keeps or situation.claim is None else situation.claim.answer
    return answer, float(rng.integers(11)) / 10


def oracle(situation: Situation, rng: np.random.Generator) -> tuple[str, float]:
    """The Bayes-optimal listener on the model's own private belief: the ceiling."""
    return bayes(situation)


class ScriptedPolicy:
    """A rule that speaks through the ``Policy`` interface.

    ``book`` holds the situation of every dialogue that it may be asked.
    """

    def __init__(self, name: str, rule: Rule, book: Mapping[Dialogue, Situation]) -> None:
        self.name = name
        self.rule = rule
        self.book = book

    def reply(
        self, dialogues: Sequence[Dialogue], n: int, sampling: Sampling
    ) -> list[list[Completion]]:
        """``n`` replies a dialogue; raises ``KeyError`` for a dialogue that is not in the book."""
        rng = np.random.default_rng(sampling.seed)
        out = []
        for dialogue in dialogues:
            situation = self.book[dialogue]
            out.append([Completion(render(*self.rule(situation, rng))) for _ in range(n)])
        return out


__all__ = [
    "ScriptedPolicy",
    "Situation",
    "always_adopt",
    "always_keep",
    "bayes",
    "coin",
    "oracle",
    "threshold",
    "weigh",
]
