"""The truth: the known right answer. The only part here that is an anchor from outside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from demur.anchors.base import answers_of
from demur.schema import Group, Verdict
from demur.tasks.grader import same


class Truth:
    """1.0 for the right answer, 0.0 for any other; abstains where the truth is not known.

    Its budget is the number of distinct labelled tasks that it has looked up: a label is bought
    once, however often it is used.
    """

    name = "truth"
    outside = True

    def __init__(self) -> None:
        self._labelled: set[str] = set()

    @property
    def budget(self) -> int:
        """Distinct labels used so far."""
        return len(self._labelled)

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with the task's truth."""
        truth, grader = group.task.truth, group.task.grader
        if truth is None:
            return [None] * len(group.episodes)
        self._labelled.add(group.task.id)
        return [
            0.0 if answer is None else float(same(answer, truth, grader))
            for answer in answers_of(group)
        ]

    def state(self) -> dict[str, object]:
        """The ids of the labelled tasks, sorted."""
        return {"labelled": sorted(self._labelled)}

    def restore(self, state: dict[str, object]) -> None:
        """Take up the ids of the labelled tasks."""
        self._labelled = set(cast("Iterable[str]", state["labelled"]))
