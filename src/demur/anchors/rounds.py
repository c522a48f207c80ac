"""The verdicts of a whole round: an anchor judges answers, and answers judge the moves before them.

Nobody judges a question or an argument by itself. Its verdict is what came of it: the mean verdict
of the replies that it led to, or what that lacks to 1 for an objector who was told to argue for a
wrong answer. So it is a probability like any other verdict, and a reward may score it.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.anchors.base import Anchor, Asking
from demur.schema import Episode, Group, Move, Verdict


def judge_round(anchor: Anchor, groups: Sequence[Group]) -> list[list[Verdict]]:
    """One verdict an episode of every group; ``None`` for a move that could not be read or led on.

    A move with an outcome of its own has that as its verdict, an assessment that of the reply which
    it is about.
    """
    if isinstance(anchor, Asking):
        anchor.prepare([group for group in groups if group.answers])
    answered = {i: anchor.judge(group) for i, group in enumerate(groups) if group.answers}
    return [
        answered[i]
        if i in answered
        else answered[group.about]
        if group.about is not None
        else [
            _came_of(episode, None if to is None else answered[to])
            for episode, to in zip(group.episodes, group.led, strict=True)
        ]
        for i, group in enumerate(groups)
    ]


def _came_of(episode: Episode, verdicts: Sequence[Verdict] | None) -> Verdict:
    move = episode.reply
    if not isinstance(move, Move):
        return None
    if move.outcome is not None:
        return move.outcome
    given = [v for v in verdicts or () if v is not None]
    if not given:
        return None
    mean = sum(given) / len(given)
    return 1.0 - mean if move.side is False else mean
