"""Selling: the policy knows an item, a buyer asks for a feature, and anything may be said of it.

The task is an offer, its question what the seller knows and what the buyer wants to know. A seller
that the embedded world does not speak to is told so in plain words.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.games.phrases import sell
from demur.games.rounds import Draw, one_round
from demur.schema import Group, Policy, Sampling


def play(policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling) -> list[Group]:
    """``n`` sales of every offer; nobody claims anything, so a claim in the draw is left out."""
    alone: list[Draw] = [(task, None) for task, _ in draws]
    return one_round(policy, alone, [sell(task) for task, _ in alone], n, sampling)
