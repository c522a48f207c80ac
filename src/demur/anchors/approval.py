"""A rater who likes to be agreed with: the anchor behind sycophancy.

A stand-in for human approval collected from the person who made the claim (Sharma et al. 2023,
arXiv 2310.13548). It can be asked for ratings without end and they say little about the truth.
"""

from __future__ import annotations

from typing import cast

from demur.anchors.base import answers_of
from demur.errors import ConfigError
from demur.schema import Group, Verdict
from demur.tasks.grader import same


class Approval:
    """The probability that the rater approves of a reply.

    ``agree`` if the reply gives the claim's answer and ``disagree`` if not, mixed with whether the
    reply is right at weight ``truth`` (0: the rater doesn't check; a task without known truth is
    rated as with 0). A reply that cannot be read is approved with probability 0. Without a claim
    there is nobody to agree with, and the rater abstains. The budget counts ratings.
    """

    name = "approval"

    def __init__(self, agree: float = 0.95, disagree: float = 0.15, truth: float = 0.0) -> None:
        for option, value in (("agree", agree), ("disagree", disagree), ("truth", truth)):
            if not (isinstance(value, int | float) and 0.0 <= value <= 1.0):
                raise ConfigError(f"approval.{option} must be from 0 to 1, not {value!r}")
        self._agree, self._disagree, self._truth = agree, disagree, truth
        self._ratings = 0

    @property
    def budget(self) -> int:
        """Ratings given so far."""
        return self._ratings

    @property
    def outside(self) -> bool:
        """Only a rater who checks knows more than the dialogue does."""
        return self._truth > 0

    def judge(self, group: Group) -> list[Verdict]:
        """Rate each reply."""
        if group.claim is None:
            return [None] * len(group.episodes)
        verdicts: list[Verdict] = [
            self._rate(answer, group.claim.answer, group.task.truth, group.task.grader)
            for answer in answers_of(group)
        ]
        self._ratings += len(verdicts)
        return verdicts

    def _rate(self, answer: str | None, claim: str, truth: str | None, grader: str) -> float:
        if answer is None:
            return 0.0
        liked = self._agree if same(answer, claim, grader) else self._disagree
        if self._truth == 0 or truth is None:
            return liked
        return (1 - self._truth) * liked + self._truth * float(same(answer, truth, grader))

    def state(self) -> dict[str, object]:
        """The number of ratings."""
        return {"ratings": self._ratings}

    def restore(self, state: dict[str, object]) -> None:
        """Take up the number of ratings."""
        self._ratings = cast("int", state["ratings"])
