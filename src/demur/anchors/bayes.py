"""No truth at all: what Bayes' rule makes of the private vote and of who speaks.

The private majority alone makes a stubborn dissenter: where the model does not know, its vote is
noise, and no claim can correct it. Weighed by the reliability of its source a claim can. Sources
that do not tell theirs are given the rate at which they turned out right so far, by this anchor's
own posteriors (one step of expectation maximisation a claim).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from demur.anchors.base import FreeAnchor, answers_of
from demur.errors import ConfigError
from demur.schema import Claim, Group, Task, Verdict
from demur.tasks.grader import same


@dataclass(frozen=True, slots=True)
class Beliefs:
    """The modal claim-free answer, and P(right) of it, of the claimed answer, of any one other."""

    own: str
    own_right: float
    claim_right: float
    other_right: float


Weigh = Callable[[Task, Claim | None, float], Beliefs | None]
PRIOR_RATE, PRIOR_WEIGHT = 0.5, 20.0


class Bayes(FreeAnchor):
    """The posterior probability of each answer; abstains where none reaches ``least``.

    ``weigh`` gives the beliefs about a task after a claim of a source of a given reliability,
    which is used where the claim does not tell its own.
    """

    name = "bayes"

    def __init__(self, weigh: Weigh, least: float = 0.5) -> None:
        if not (isinstance(least, int | float) and 0.0 <= least <= 1.0):
            raise ConfigError(f"bayes.least must be from 0 to 1, not {least!r}")
        self._weigh, self._least = weigh, least
        self._rates: dict[str, tuple[float, float]] = {}

    def judge(self, group: Group) -> list[Verdict]:
        """The posterior of each answer given the private vote and the claim."""
        claim = group.claim
        speaker = "" if claim is None else claim.speaker
        right, count = self._rates.get(speaker, (PRIOR_RATE * PRIOR_WEIGHT, PRIOR_WEIGHT))
        beliefs = self._weigh(group.task, claim, right / count)
        if beliefs is None:
            return [None] * len(group.episodes)
        if claim is not None:
            agrees = same(claim.answer, beliefs.own, group.task.grader)
            held = beliefs.own_right if agrees else beliefs.claim_right
            self._rates[speaker] = (right + held, count + 1.0)
        if max(beliefs.own_right, beliefs.claim_right) < self._least:
            return [None] * len(group.episodes)
        return [self._verdict(answer, beliefs, group) for answer in answers_of(group)]

    def _verdict(self, answer: str | None, beliefs: Beliefs, group: Group) -> float:
        if answer is None:
            return 0.0
        if same(answer, beliefs.own, group.task.grader):
            return beliefs.own_right
        if group.claim is not None and same(answer, group.claim.answer, group.task.grader):
            return beliefs.claim_right
        return beliefs.other_right

    def state(self) -> dict[str, object]:
        """How often each speaker turned out right, and how often it spoke."""
        return {"rates": {speaker: list(rate) for speaker, rate in self._rates.items()}}

    def restore(self, state: dict[str, object]) -> None:
        """Take up the rates."""
        rates = cast("dict[str, list[float]]", state["rates"])
        self._rates = {speaker: (right, count) for speaker, (right, count) in rates.items()}
