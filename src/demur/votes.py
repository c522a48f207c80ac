"""How a group's own vote stands to the truth: TTRL's six figures, flips, what is learned and lost.

For a prompt whose n answers hold the modal one in a share m and the right one in a share g
(arXiv 2504.16084, section 4): label accuracy asks whether the modal answer is right, reward
accuracy how many replies are paid as the truth would pay them. On a prompt with a wrong label every
positive reward is wrong, and reward accuracy is 1 - m - g: it falls as consensus grows. Nobody is
paid by these figures; prompts whose truth is unknown have none. "No answer" is a vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from demur.anchors import answers_of
from demur.schema import Group, Stats, Verdict
from demur.tasks.grader import modal, same

FIGURES = (
    *("label_accuracy", "reward_accuracy", "majority_ratio", "truth_ratio", "pass_at_n"),
    *("wrong_label_reward_accuracy", "wrong_label_majority_ratio"),
)


class VoteMeter:
    """The figures of each step, and what became of each prompt's label since it was first seen."""

    def __init__(self) -> None:
        self._first: dict[str, bool] = {}  # was the label right when the prompt was first seen?
        self._last: dict[str, tuple[str | None, bool]] = {}

    def __call__(self, groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]]) -> Stats:
        """Means over the step's prompts; NaN where there is none, never 0.

        ``flip_rate`` is over prompts seen before without a claim: the share whose label is another
        one than last time. ``learned`` and ``corrupted`` count prompts whose label was wrong when
        first seen and is right now, and the other way round.
        """
        each: dict[str, list[float]] = {name: [] for name in FIGURES}
        flips: list[float] = []
        for group, judged in zip(groups, verdicts, strict=True):
            if not group.answers or group.task.truth is None or not group.episodes:
                continue
            answers, grader = answers_of(group), group.task.grader
            label, share = modal(answers, grader)
            hits = [a is not None and same(a, group.task.truth, grader) for a in answers]
            right = label is not None and same(label, group.task.truth, grader)
            each["label_accuracy"].append(float(right))
            each["majority_ratio"].append(share)
            each["truth_ratio"].append(float(np.mean(hits)))
            each["pass_at_n"].append(float(any(hits)))
            paid = [(v >= 0.5) == hit for v, hit in zip(judged, hits, strict=True) if v is not None]
            if paid:
                each["reward_accuracy"].append(float(np.mean(paid)))
            if not right and label is not None:
                each["wrong_label_majority_ratio"].append(share)
                if paid:
                    each["wrong_label_reward_accuracy"].append(float(np.mean(paid)))
            if group.claim is None:
                flips += self._follow(group.task.id, label, right, grader)
        stats = {name: float(np.mean(v)) if v else float("nan") for name, v in each.items()}
        stats["flip_rate"] = float(np.mean(flips)) if flips else float("nan")
        turned = [self._last[i][1] - was for i, was in self._first.items()]
        stats["learned"], stats["corrupted"] = float(turned.count(1)), float(turned.count(-1))
        return stats

    def _follow(self, task: str, label: str | None, right: bool, grader: str) -> list[float]:
        before = self._last.get(task)
        self._first.setdefault(task, right)
        self._last[task] = (label, right)
        if before is None:
            return []
        if before[0] is None or label is None:
            return [float(before[0] is not label)]
        return [float(not same(before[0], label, grader))]

    def state(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"first": dict(self._first), "last": {k: list(v) for k, v in self._last.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._first = dict(state["first"])
        self._last = {k: (v[0], bool(v[1])) for k, v in state["last"].items()}
