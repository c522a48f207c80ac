"""What is played. A game speaks dialogues, never tokens; one file a game, one entry here.

A game takes a policy, a list of (task, claim or None) draws and a group size, and gives back groups
of finished episodes, asking the policy once a round for all of them. A game of one seat gives one
group a draw. With more seats, a group holds the moves of one seat, and says of each move which
group it led to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from demur import registry
from demur.games import objection, post_completion, sell, solo
from demur.games.argue import Argue
from demur.games.propose import Propose
from demur.games.rounds import RESPONDER, Draw
from demur.schema import Group, Policy, Sampling, Task


class Game(Protocol):
    """The call that every game answers."""

    def __call__(
        self, policy: Policy, draws: Sequence[Draw], n: int, sampling: Sampling
    ) -> list[Group]:
        """Play ``n`` episodes of every draw."""
        ...


@runtime_checkable
class SelfAsking(Protocol):
    """A game that asks its own questions: no task is drawn for it."""

    def draws(self, count: int) -> list[Draw]:
        """What ``count`` questions are asked for, instead of draws from a pool."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A game that a resumed run has to find as it was."""

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        ...


@runtime_checkable
class Opposed(Protocol):
    """A game against past versions of the policy."""

    opponents: list[Policy]
    remember: int

    def meet(self, opponent: Policy) -> None:
        """Let a past version play from now on."""
        ...


GAMES: dict[str, Callable[..., Game]] = {
    "solo": lambda: solo.play,
    "objection": lambda: objection.play,
    "sell": lambda: sell.play,
    "propose": Propose,
    "argue": Argue,
    "post_completion": lambda: post_completion.play,
}
"""Every game's constructor by name; its parameters are its options,
apart from what the run supplies (see ``make_game``)."""

SEATS: dict[str, tuple[str, ...]] = {
    "propose": ("proposer",),
    "argue": ("objector",),
    "post_completion": ("assessor",),
}
"""The seats of each game beside the responder's."""

__all__ = [
    "GAMES",
    "RESPONDER",
    "SEATS",
    "Draw",
    "Game",
    "Opposed",
    "Remembering",
    "SelfAsking",
    "make_game",
]


def make_game(
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    recognise: Callable[[str], Task | None] = lambda question: None,
    kept: Callable[[Task], bool] = lambda task: False,
) -> Game:
    """Make a game from its name and options; raises ``UnknownName`` for either.

    ``recognise`` gives the task of a question that the run knows, ``kept`` says whether it is kept
    for evaluation; a game that takes questions from a model is given both.
    """
    supplied = {"recognise": recognise, "kept": kept}
    made: Game = registry.make("game", GAMES, name, options or {}, supplied)
    return made
