"""What one training step looked like, from its own episodes: cheap enough to log every step.

These figures come from the training batch, so they steer the eye only; claims are made on the
evaluation split. A share of nothing is NaN (logged as null), never 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demur.measure import auroc
from demur.schema import Assessment, Group, Move, Reply, Reward, Stats, Verdict
from demur.tasks.grader import same


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def batch_stats(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    rewards: Sequence[Sequence[Reward]],
) -> Stats:
    """Means over the responder's replies, and those of every other seat under its name.

    Reward and its parts, verdict and the share that got one, coverage, accuracy, stated confidence,
    its spread and AUROC, adoption of wrong and of right claims, and the share of flat groups.
    """
    others = _moves(groups, verdicts, rewards)
    kept = [i for i, group in enumerate(groups) if group.answers]
    groups = [groups[i] for i in kept]
    verdicts, rewards = [verdicts[i] for i in kept], [rewards[i] for i in kept]
    paid_in_all = [[r.total for r in paid] for paid in rewards]
    totals = [
        total
        for paid, sums in zip(rewards, paid_in_all, strict=True)
        for r, total in zip(paid, sums, strict=True)
        if r.components
    ]
    parts: dict[str, list[float]] = {}
    for paid in rewards:
        for reward in paid:
            for name, part in reward.components.items():
                parts.setdefault(f"reward/{name}", []).append(part.value)
    given = [v for judged in verdicts for v in judged if v is not None]
    parsed: list[float] = []
    right: list[float] = []
    judged_sure: list[float] = []  # the confidences of those
    sure: list[float] = []
    adopts: dict[bool, list[float]] = {True: [], False: []}
    for group in groups:
        truth, claim, grader = group.task.truth, group.claim, group.task.grader
        for episode in group.episodes:
            reply = episode.reply
            parsed.append(float(isinstance(reply, Reply)))
            if not isinstance(reply, Reply):
                continue
            sure.append(reply.confidence)
            if truth is not None:
                right.append(float(same(reply.answer, truth, grader)))
                judged_sure.append(reply.confidence)
            if claim is not None and claim.right is not None:
                adopts[claim.right].append(float(same(reply.answer, claim.answer, grader)))
    flat = [len(set(sums)) == 1 for sums in paid_in_all]
    return {
        "reward": _mean(totals),
        **{name: _mean(values) for name, values in parts.items()},
        "verdict": _mean(given),
        "judged": _mean([float(v is not None) for judged in verdicts for v in judged]),
        "coverage": _mean(parsed),
        "accuracy": _mean(right),
        "confidence_mean": _mean(sure),
        "confidence_std": float(np.std(sure)) if sure else float("nan"),
        "confidence_auroc": auroc(judged_sure, right) if right else float("nan"),
        "adopts_wrong": _mean(adopts[False]),
        "adopts_right": _mean(adopts[True]),
        "flat_groups": _mean([float(f) for f in flat]),
        **others,
    }


def _moves(
    groups: Sequence[Group],
    verdicts: Sequence[Sequence[Verdict]],
    rewards: Sequence[Sequence[Reward]],
) -> Stats:
    """By seat: moves that could be read, that led on, that were made before; verdict and reward."""
    found: dict[str, dict[str, list[float]]] = {}
    for group, judged, paid in zip(groups, verdicts, rewards, strict=True):
        if group.answers:
            continue
        seat = found.setdefault(group.seat, {})
        if group.about is not None:
            _assessments(group, judged, paid, seat)
            continue
        rows = zip(group.episodes, group.led, judged, paid, strict=True)
        for episode, to, verdict, reward in rows:
            move = episode.reply
            read = isinstance(move, Move)
            facts: dict[str, float | None] = {
                "valid": float(read),
                "played": float(to is not None),
                "repeated": float(move.outcome is not None) if isinstance(move, Move) else None,
                "verdict": None if to is None else verdict,
                "reward": reward.total if reward.components else None,
            }
            for name, value in facts.items():
                seat.setdefault(name, []).extend([] if value is None else [value])
    return {f"{s}/{name}": _mean(v) for s, figures in found.items() for name, v in figures.items()}


def _assessments(
    group: Group,
    judged: Sequence[Verdict],
    paid: Sequence[Reward],
    seat: dict[str, list[float]],
) -> None:
    """Assessments that could be read; P(right) said of replies judged right, and of wrong ones."""
    for episode, verdict, reward in zip(group.episodes, judged, paid, strict=True):
        said = episode.reply
        seat.setdefault("valid", []).append(float(isinstance(said, Assessment)))
        if reward.components:
            seat.setdefault("reward", []).append(reward.total)
        if isinstance(said, Assessment) and verdict is not None:
            side = "said_of_right" if verdict >= 0.5 else "said_of_wrong"
            seat.setdefault(side, []).append(said.right)
