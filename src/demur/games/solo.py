"""Solo: the question alone. Any claim in the draw is left out."""

from __future__ import annotations

from collections.abc import Sequence

from demur.games.phrases import ask
from demur.games.rounds import Draw, one_round
from demur.schema import Group, Policy, Sampling


def play(policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling) -> list[Group]:
    """Ask every task ``n`` times without a claim."""
    alone: list[Draw] = [(task, None) for task, _ in draws]
    return one_round(policy, alone, [ask(task) for task, _ in alone], n, sampling)
