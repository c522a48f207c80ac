"""The majority vote of the group's own replies (TTRL, arXiv 2504.16084): the consensus as judge.

It asks nothing of the world, and after a claim the vote is already under the claim's influence,
which is why it pays for agreement.
"""

from __future__ import annotations

from demur.anchors.base import FreeAnchor, answers_of
from demur.schema import Group, Verdict
from demur.tasks.grader import NO_ANSWER, classes


class Majority(FreeAnchor):
    """1.0 for the group's most common answer, 0.0 for any other.

    "No answer" is a class of votes; where it wins there is no pseudo-label and everyone abstains. A
    tie goes to the answer seen first.
    """

    name = "majority"

    def judge(self, group: Group) -> list[Verdict]:
        """Vote, then compare each answer with the winner."""
        labels = classes(answers_of(group), group.task.grader)
        if not labels:
            return []
        winner = max(dict.fromkeys(labels), key=labels.count)
        if winner == NO_ANSWER:
            return [None] * len(labels)
        return [float(label == winner) for label in labels]
