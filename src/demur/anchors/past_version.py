"""An earlier self as judge: it hears the question alone, so no claim of today can move it.

Frozen at the start of a stage, or a slow-moving average of the weights since (the idea of keeping a
past model as one side of a comparison is that of Temporal Self-Rewarding, arXiv 2508.06026). It
knows no more than the policy did; it only cannot be talked round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demur.anchors.base import FreeAnchor, answers_of
from demur.errors import ConfigError
from demur.schema import Group, Task, Verdict
from demur.tasks.grader import same

Answers = Callable[[Sequence[Task], int], list[list[str | None]]]
"""What somebody answers each of some tasks alone, so many times each; ``None`` where unreadable."""


def share_of(answer: str | None, given: Sequence[str | None], task: Task) -> float:
    """The share of the answers given that are this one."""
    if answer is None:
        return 0.0
    return sum(g is not None and same(answer, g, task.grader) for g in given) / len(given)


class PastVersion(FreeAnchor):
    """The share of the past version's own replies to the question alone that give this answer.

    ``samples`` replies a task. With ``average`` it is the mean of the weights of all steps so far,
    each step's weighing ``1 - average`` of the new one (0: frozen at the start of the stage); a
    frozen one is asked once a task. Where none of its replies could be read it abstains.
    """

    name = "past_version"

    def __init__(self, past: Answers, samples: int = 8, average: float = 0.0) -> None:
        if not isinstance(samples, int) or samples < 1:
            raise ConfigError(f"past_version.samples must be 1 or more, not {samples!r}")
        if not (isinstance(average, int | float) and 0.0 <= average < 1.0):
            raise ConfigError(f"past_version.average must be from 0 to below 1, not {average!r}")
        self._past, self._samples, self.average = past, samples, float(average)
        self._given: dict[str, list[str | None]] = {}

    def prepare(self, groups: Sequence[Group]) -> None:
        """Ask about all tasks of a round in one batch."""
        if self.average:
            self._given = {}
        tasks = {g.task.id: g.task for g in groups if g.task.id not in self._given}
        if tasks:
            given = self._past(list(tasks.values()), self._samples)
            self._given |= dict(zip(tasks, given, strict=True))

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with the past version's."""
        if group.task.id not in self._given:
            self.prepare([group])
        given = self._given[group.task.id]
        if all(answer is None for answer in given):
            return [None] * len(group.episodes)
        return [share_of(answer, given, group.task) for answer in answers_of(group)]
