"""The majority vote of claim-free samples: what the model thought before anybody spoke.

A claim cannot move this vote, so it teaches to resist; but where the model doesn't know, its own
vote is noise, so it doesn't teach to accept.
"""

from __future__ import annotations

from collections.abc import Callable

from demur.anchors.base import FreeAnchor, answers_of
from demur.schema import Group, Task, Verdict
from demur.tasks.grader import same


class PrivateMajority(FreeAnchor):
    """1.0 for the modal claim-free answer, 0.0 for any other.

    ``private`` gives a task's modal claim-free answer and its share. Where that answer is ``None``
    (most samples could not be read) everyone abstains.
    """

    name = "private_majority"

    def __init__(self, private: Callable[[Task], tuple[str | None, float]]) -> None:
        self._private = private

    def judge(self, group: Group) -> list[Verdict]:
        """Compare each answer with the private vote."""
        vote, _ = self._private(group.task)
        if vote is None:
            return [None] * len(group.episodes)
        return [
            0.0 if answer is None else float(same(answer, vote, group.task.grader))
            for answer in answers_of(group)
        ]
