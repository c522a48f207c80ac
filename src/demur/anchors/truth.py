"""The truth: the known right answer, or what somebody says of it who is right at a stated rate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import cast

from demur.anchors.base import answers_of
from demur.errors import ConfigError
from demur.schema import Group, Task, Verdict
from demur.tasks.grader import get_grader, same


class Truth:
    """1.0 for the right answer, 0.0 for any other; abstains where the truth is not known.

    With a ``reliability`` below 1 a verdict is the other one at the rate that it lacks: how good an
    anchor has to be is measured with it. Who is wrong stays wrong, as a label that is bought once
    does: an answer to a task is always judged alike (``seed`` says which ones wrongly).

    Its budget is the number of distinct labelled tasks that it has looked up: a label is bought
    once, however often it is used. With ``labels`` it looks up so many, the first that it meets,
    and abstains on all others.
    """

    name = "truth"

    def __init__(self, reliability: float = 1.0, labels: int | None = None, seed: int = 0) -> None:
        if not (isinstance(reliability, int | float) and 0.0 <= reliability <= 1.0):
            raise ConfigError(f"truth.reliability must be from 0 to 1, not {reliability!r}")
        if labels is not None and (not isinstance(labels, int) or labels < 0):
            raise ConfigError(f"truth.labels must be 0 or more, not {labels!r}")
        self._reliability, self._labels, self._seed = reliability, labels, seed
        self._labelled: set[str] = set()

    @property
    def outside(self) -> bool:
        """A coin knows nothing."""
        return self._reliability != 0.5

    @property
    def budget(self) -> int:
        """Distinct labels used so far."""
        return len(self._labelled)

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with the task's truth."""
        task = group.task
        spent = self._labels is not None and len(self._labelled) >= self._labels
        if task.truth is None or (spent and task.id not in self._labelled):
            return [None] * len(group.episodes)
        self._labelled.add(task.id)
        return [
            0.0 if answer is None else self._verdict(task, task.truth, answer)
            for answer in answers_of(group)
        ]

    def _verdict(self, task: Task, truth: str, answer: str) -> float:
        right = float(same(answer, truth, task.grader))
        if self._reliability == 1.0:
            return right
        key = get_grader(task.grader).key
        alike = truth if right else answer  # where pairs alone are compared, wrong ones stay texts
        told = f"{self._seed}\0{task.id}\0{key(answer) if key else alike}"
        drawn = int.from_bytes(hashlib.blake2b(told.encode(), digest_size=8).digest(), "big")
        return right if drawn / 2**64 < self._reliability else 1.0 - right

    def state(self) -> dict[str, object]:
        """The ids of the labelled tasks, sorted."""
        return {"labelled": sorted(self._labelled)}

    def restore(self, state: dict[str, object]) -> None:
        """Take up the ids of the labelled tasks."""
        self._labelled = set(cast("Iterable[str]", state["labelled"]))
