"""What a run's own labels are worth: votes against the truth, gaps, what is learned and lost.

For a prompt whose n answers hold the modal one in a share m and the right one in a share g
(arXiv 2504.16084, section 4): label accuracy asks whether the modal answer is right, reward
accuracy how many replies are paid as the truth would pay them. On a prompt with a wrong label every
positive reward is wrong, and reward accuracy is 1 - m - g: it falls as consensus grows.

The generation-verification gap of a verifier (arXiv 2412.02674) is by how much a prompt's accuracy
rises if its replies are weighed by what the verifier says of them,
sum(w right) / sum(w) - mean(right), and relative to what there was to gain, 1 - mean(right). There
are two verifiers here: the anchor, and the confidence that the replies state. Where the anchor's
gap is 0 or less, learning from its verdicts cannot help.

Nobody is paid by these figures; prompts whose truth is unknown have none. "No answer" is a vote.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from demur.anchors import answers_of
from demur.schema import FloatArray, Group, Reply, Stats, Verdict
from demur.tasks.grader import classes, modal, same

FIGURES = (
    *("label_accuracy", "reward_accuracy", "majority_ratio", "truth_ratio", "pass_at_n"),
    *("wrong_label_reward_accuracy", "wrong_label_majority_ratio"),
    *("distinct_answers", "entropy"),
    *("gap", "gap_relative", "gap_confidence", "gap_confidence_relative"),
)
GAPS = ("gap", "gap_confidence")
SURE = 1.96  # standard errors either side of a mean


def gap(weights: Sequence[float | None], right: Sequence[bool]) -> float | None:
    """The accuracy of replies weighed by a verifier, less their plain accuracy.

    ``None`` where it gives none of them any weight. A reply without a verdict weighs nothing.

    >>> gap([1.0, 0.0, 0.0, 1.0], [True, False, True, True])
    0.25
    """
    w = np.array([0.0 if v is None else v for v in weights])
    if w.sum() <= 0:
        return None
    hits = np.asarray(right, dtype=np.float64)
    return float(w @ hits / w.sum() - hits.mean())


def _entropy(shares: FloatArray) -> float:
    return abs(float((shares * np.log(shares)).sum()))


def stated(group: Group) -> list[float | None]:
    """The confidence that each reply states; ``None`` where it could not be read."""
    return [e.reply.confidence if isinstance(e.reply, Reply) else None for e in group.episodes]


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
            hit_rate = sum(hits) / len(hits)
            each["truth_ratio"].append(hit_rate)
            each["pass_at_n"].append(float(any(hits)))
            shares = np.array(list(Counter(classes(answers, grader)).values())) / len(answers)
            each["distinct_answers"].append(float(shares.size))
            each["entropy"].append(_entropy(shares))
            for name, weights in (("gap", judged), ("gap_confidence", stated(group))):
                found = gap(weights, hits)
                if found is not None:
                    each[name].append(found)
                    missing = 1.0 - hit_rate
                    each[f"{name}_relative"].extend([found / missing] if missing else [])
            paid = [(v >= 0.5) == hit for v, hit in zip(judged, hits, strict=True) if v is not None]
            if paid:
                each["reward_accuracy"].append(sum(paid) / len(paid))
            if not right and label is not None:
                each["wrong_label_majority_ratio"].append(share)
                if paid:
                    each["wrong_label_reward_accuracy"].append(sum(paid) / len(paid))
            if group.claim is None:
                flips += self._follow(group.task.id, label, right, grader)
        stats = {name: float(np.mean(v)) if v else float("nan") for name, v in each.items()}
        for name in GAPS:
            if len(each[name]) > 1:
                spread = SURE * float(np.std(each[name], ddof=1)) / math.sqrt(len(each[name]))
                stats |= {f"{name}_low": stats[name] - spread, f"{name}_high": stats[name] + spread}
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
