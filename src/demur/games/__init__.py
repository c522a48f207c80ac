"""What is played. A game speaks dialogues, never tokens; one file a game, one entry here.

A game takes a policy, a list of (task, claim or None) draws and a group size, and gives back one
group of finished episodes for each draw, asking the policy once a round for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from demur.games import objection, solo
from demur.schema import Claim, Group, Policy, Sampling, Task

Draw = tuple[Task, Claim | None]


class Game(Protocol):
    """The call that every game answers."""

    def __call__(
        self, policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling
    ) -> list[Group]:
        """Play ``n`` episodes of every draw."""
        ...


GAMES: dict[str, Game] = {"solo": solo.play, "objection": objection.play}

__all__ = ["GAMES", "Draw", "Game"]
