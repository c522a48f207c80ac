"""Objection: somebody states an answer beside the question; the responder replies once.

A draw without a claim is asked alone, so one batch can mix both.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.games.phrases import ask, object_to
from demur.games.rounds import Draw, one_round
from demur.schema import Group, Policy, Sampling


def play(policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling) -> list[Group]:
    """Reply ``n`` times to every draw, with its claim where it has one."""
    dialogues = [ask(t) if c is None else object_to(t, c) for t, c in draws]
    return one_round(policy, draws, dialogues, n, sampling)
